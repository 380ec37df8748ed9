"""`python -m umie`: the command line."""

from umie.cli import main

if __name__ == "__main__":
    main()
