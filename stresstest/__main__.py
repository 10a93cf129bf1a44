"""`python -m stresstest`."""

from stresstest.cli import main

if __name__ == "__main__":
    main()
