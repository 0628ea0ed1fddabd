"""The 62 characters of the MIDAS task, in the order of their classes."""

import string

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
