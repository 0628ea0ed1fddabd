"""What a user asked for and cannot have: the one kind of error that this package adds."""


class UserError(ValueError):
    """A request cannot be met; the message is one line that says what was got and expected."""
