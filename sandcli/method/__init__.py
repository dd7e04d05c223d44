"""The paper's own steps as pure functions; only `writing` calls an engine, which it is given."""
