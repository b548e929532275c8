"""The subcommands of `mipnb`: each module has `add_parser(commands)` and what its command does."""
