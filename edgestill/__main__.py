"""Run `python -m edgestill` as `edgestill`."""

from edgestill.flows.cli.main import main

if __name__ == "__main__":
    main()
