"""`python -m mltrain`: the same as the `mltrain` command."""
from mltrain.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
