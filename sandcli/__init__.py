"""SAND: self-taught action deliberation for language-model agents.

One folder for each noun, one verb a file: a stage of the paper's Algorithm 1 lives in `sandcli.stages`,
what it stands on in `sandcli.engines` (language models) and `sandcli.envs` (text worlds). Start at
`sandcli.cli` for the commands, at `sandcli.core.runner` for how any stage is planned, run and sealed.
"""

__version__ = "0.1.0"
