"""What the command line is made of: commands, their options, and error messages that name options."""

import argparse
import re
from dataclasses import Field
from typing import get_args


class Parser(argparse.ArgumentParser):
    def error(self, message):
        """Print one line instead of the whole usage."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


PARSER = Parser("python -m monodepth_nb", description="Learn and predict depth from one picture.")
COMMANDS = PARSER.add_subparsers(title="commands", metavar="COMMAND", required=True)


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of an option, unless it is None or False: then the help text says what happens."""

    def _get_help_string(self, action):
        if isinstance(action.default, list):
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


def command(summary: str, *options: tuple):
    """Make the function below a command of its name with these `option`s; of two with one name, the later counts."""

    def register(run):
        layout = dict(formatter_class=Help, conflict_handler="resolve")
        parser = COMMANDS.add_parser(run.__name__.replace("_", "-"), help=summary, description=summary, **layout)
        for names, settings in options:
            parser.add_argument(*names, **settings)
        parser.set_defaults(run=run)
        return run

    return register


def option(*names: str, **settings) -> tuple:
    """The arguments of `ArgumentParser.add_argument`."""
    return names, settings


def config_option(field: Field) -> tuple:
    """The option for a field of `TrainConfig`, with its default, help, choices and type."""
    settings = {"default": field.default, "help": field.metadata["help"], "action": "store_true"}
    if field.type is not bool:
        kind = (*get_args(field.type), field.type)[0]  # float of `float | None`
        kind = not_negative if kind is int else kind
        settings |= {"action": "store", "choices": field.metadata["choices"], "type": kind}
    return option(f"--{field.name.replace('_', '-')}", **settings)


def positive(text: str) -> int:
    """The type of options that count something."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not larger than 0")
    return int(text)


def not_negative(text: str) -> int:
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return int(text)


def with_options(message: str, args) -> str:
    """The message with options instead of the Python arguments that they become."""
    for name in vars(args):
        named = f"--{name.replace('_', '-')}"
        message = re.sub(rf"\b{name}=[\"'](\w+)[\"']", rf"{named} \1", message)
        message = re.sub(rf"\b{name}=True\b", named, message)
        if "_" in name:
            message = re.sub(rf"(?<![\w/.-]){name}(?![\w/.-])", named, message)
    return message
