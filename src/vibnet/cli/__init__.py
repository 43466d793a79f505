"""The command `vibnet`."""

from vibnet.cli.app import app as app
