"""``python -m hybrid_nets`` is the console script ``hybrid-nets``."""

from hybrid_nets.cli import main

if __name__ == "__main__":
    main()
