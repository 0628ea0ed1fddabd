"""Words that stand in a reader's way stay out of docstrings, comments, help, messages and docs."""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Whole words or phrases, and the word to use instead.
INSTEAD = {
    r"pictures?": "image",
    r"(go|goes|going|gone) on (with|after|from|to)": "resume",
    r"(learn|learns|learned|learning) from": "train on",
    r"what (is|was) learned": "weights",
    r"right (labels?|answers?)": "correct",
    r"is right (on|in|about)": "accuracy",
    r"the share of": "the fraction of, accuracy",
    r"witness(es)?|bears? witness|testif(y|ies)|testimony": "reference model",
    r"borrow(s|ed|ing)?": "use",
    r"judged?|judges": "evaluate; eval model, EMA model",
    r"heard|told|tells? apart": "reported, distinguished",
    r"hands (that|which|of)|other hands|hand-drawn": "writers",
    r"besides": "additional, auxiliary",
    r"nobody|somebody|anybody": "(name who or what)",
    r"those that|the one that|what is there": "(repeat the noun)",
    r"chances of": "probabilities",
    r"strays?": "outliers",
    r"ways? to (recover|mislabel)": "method",
    r"counted labels": "sample count",
    r"so many": "(say which number)",
    r"(is|are|was|were) said|it is said|say(s)? so in a line": "is printed, is reported",
    r"in a line, once|said in (a|one) line": "in one line",
    r"that (is|was) (ended|begun)|were ended|was ended": "interrupted, killed, finished",
    r"answers to": "predictions for",
    r"for want of|in vain|lest|of late|no less": "(plain words)",
}
WORDS = re.compile(rf"\b({'|'.join(INSTEAD)})\b", re.IGNORECASE)

# Honest uses: a file, and the text around the word.
ALLOWED: tuple[tuple[str, str], ...] = (
    ("pipeline/analysis/label_noise.py", "Learning from complementary labels"),  # a title
    ("pipeline/data/sources/midas.py", "hand-drawn half of Chars74K"),
    ("pipeline/experiments/part3.py", "witness: …"),  # the option's name
)

PROSE = 4  # words, from which on a string in code is a sentence


def plain(text: str) -> str:
    """Prose without code: `names`, "quoted values" and commands are not words."""
    text = re.sub(r"``?[^`]*``?", " ", text)
    text = re.sub(r'"[\w-]+"', " ", text)
    return re.sub(r"\s+", " ", text)


def python_prose(source: str) -> Iterator[str]:
    """Comments, docstrings, and strings that are sentences."""
    comments: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments.append(token.string.lstrip("#: "))
        elif token.type not in (tokenize.NL, tokenize.INDENT, tokenize.DEDENT) and comments:
            yield " ".join(comments)
            comments = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts = [one.value for one in node.values if isinstance(one, ast.Constant)]
            yield " … ".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(text := node.value, str):
            # Commands in a docstring are indented and start with a file.
            lines = text.splitlines() if is_sentence(text) else []
            yield "\n".join(re.sub(r"^ {4,}\S+\.(sh|py).*?(  |$)", "", line) for line in lines)


def is_sentence(text: str) -> bool:
    """Whether a string has several words and is no script."""
    return len(text.split()) >= PROSE and "import " not in text


def markdown_prose(text: str) -> Iterator[str]:
    """Paragraphs and tables, without code blocks and the targets of links."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    for paragraph in text.split("\n\n"):
        if not paragraph.startswith("    "):
            yield paragraph


def shell_prose(text: str) -> Iterator[str]:
    """Comments, and the page of help."""
    yield from (line.lstrip("# ") for line in text.splitlines() if line.lstrip().startswith("#"))
    yield from re.findall(r"<<'END'\n(.*?)\nEND", text, re.DOTALL)


READERS = {".py": python_prose, ".md": markdown_prose, ".sh": shell_prose}


def found(path: str, text: str) -> list[str]:
    """The words of a file that have a better one."""
    lines = []
    for prose in READERS[Path(path).suffix](text):
        words = plain(prose)
        for match in WORDS.finditer(words):
            around = words[max(0, match.start() - 30) : match.end() + 30]
            if not any(path == file and honest in around for file, honest in ALLOWED):
                lines.append(f"{path}: …{around}…")
    return lines


def files() -> list[str]:
    """Files of the project that hold prose, without tests and the licence."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = [path for path in listed.splitlines() if Path(path).suffix in READERS]
    return [path for path in paths if not path.startswith("tests/") and (ROOT / path).exists()]


def test_words_stand_in_nobodys_way() -> None:
    paths = files()
    assert len(paths) > 100
    assert [line for path in paths for line in found(path, (ROOT / path).read_text())] == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.py", '"""Go on with a run\n    that was killed."""'),
        ("a.py", "x = 1  # the share of labels\n"),
        ("a.py", 'raise ValueError(f"{x}: no pictures in its split {y!r}")'),
        ("a.py", 'class A:\n    x: int\n    """Which of the witnesses is asked."""'),
        ("a.md", "A network\nthat was judged."),
        ("a.sh", "# what the witness tells"),
        ("a.sh", "cat <<'END'\nthe pictures\nEND\n"),
    ],
)
def test_a_word_is_seen(path: str, text: str) -> None:
    assert found(path, text)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.py", '"""Return `witness` of a "judged" thing."""'),
        ("a.py", "pictures = witness\n"),
        ("a.md", "    ./launch.sh train part3 --witness RUN\n\nText with `witness`."),
    ],
)
def test_names_are_not_words(path: str, text: str) -> None:
    assert found(path, text) == []
