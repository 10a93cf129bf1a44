"""`python -m stresstest`."""

from stresstest.cli.main import main

if __name__ == "__main__":
    main()
