"""The words the generated tasks are made of, and how they are put together in English.

The lists are short on purpose: a word-piece vocabulary of a few hundred entries covers all
families, so that a very small model can learn them.
"""

from collections.abc import Sequence

COLORS = ("red", "blue", "green", "yellow", "orange", "purple", "pink", "brown", "black", "white")
PEOPLE = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Grace")

FRUITS = ("apple", "banana", "fig", "grape", "lemon", "orange", "pear", "plum")
ANIMALS = ("bear", "cat", "cow", "dog", "duck", "frog", "goat", "owl")
VEGETABLES = ("bean", "beet", "carrot", "leek", "onion", "pea", "pepper", "yam")
INSTRUMENTS = ("bell", "drum", "flute", "guitar", "harp", "horn", "piano", "violin")
THINGS = ("bag", "ball", "book", "bowl", "box", "coin", "cup", "hat", "key", "pen")

_NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty")


def number_word(number: int) -> str:
    """Write out a number: 21 -> "twenty-one". Raises IndexError from 50 on."""
    if number < len(_NUMBERS):
        return _NUMBERS[number]
    tens, ones = divmod(number, 10)
    return _TENS[tens - 2] + (f"-{_NUMBERS[ones]}" if ones else "")


def with_article(noun: str) -> str:
    """Put "a" or "an" before a noun, by its first letter; that is right for the words above."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def listing(items: Sequence[str]) -> str:
    """Join items as a sentence does: "a", "a and b", "a, b, and c"."""
    if len(items) < 3:
        return " and ".join(items)
    return f"{', '.join(items[:-1])}, and {items[-1]}"
