"""Run `python -m edgestill.flows.cli` as `edgestill`."""

from edgestill.flows.cli.main import main

if __name__ == "__main__":
    main()
