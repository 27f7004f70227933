"""`python -m apr`, with `bench` on the path."""

from apr.run import main

if __name__ == "__main__":
    main()
