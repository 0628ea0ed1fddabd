"""The error of an image that cannot be predicted."""

from pipeline.errors import UserError


class PictureError(UserError):
    """An image that cannot be predicted; the message is the reason, without the image's name."""
