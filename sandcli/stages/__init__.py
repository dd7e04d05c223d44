"""The stages, one verb in each file; `sandcli.core.runner` runs any of them."""
