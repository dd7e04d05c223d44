"""An experiment on a GPU machine that has torch but no network: pack, unpack, check, work. See docs/gpu.md."""
