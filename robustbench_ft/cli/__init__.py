"""The command line: parsing and printing. Nothing heavy is imported before a command needs it."""

from .main import main as main
