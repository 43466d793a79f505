"""`python -m vibnet`."""

from vibnet.cli import app

if __name__ == "__main__":
    app(prog_name="vibnet")
