"""English words for numbers and units, and words beside which a number is not the answer."""

import re


def _numbered(words: str, first: int, step: int = 1) -> dict[str, int]:
    return {word: first + step * i for i, word in enumerate(words.split())}


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


SMALL = _numbered(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen",
    0,
)
TENS = _numbered("twenty thirty forty fifty sixty seventy eighty ninety", 20, 10)
SCALES = {"dozen": 12, "thousand": 10**3, "lakh": 10**5, "million": 10**6, "crore": 10**7}
SCALES |= {"billion": 10**9, "bn": 10**9, "trillion": 10**12, "tn": 10**12}
SCALES |= {"quadrillion": 10**15, "quintillion": 10**18}
PLURAL_SCALES = {f"{word}s": value for word, value in SCALES.items() if len(word) > 2}
# What a letter behind digits means: of any number; of money alone, since "5m" may be metres.
LETTER_SCALES = {"k": 10**3}
MONEY_SCALES = {"m": 10**6, "mn": 10**6, "b": 10**9, "t": 10**12}

SMALL_ORDINALS = _numbered(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth",
    1,
)
TENS_ORDINALS = {f"{word[:-1]}ieth": value for word, value in TENS.items()}
ORDINAL_SCALES = {"hundredth": 100, "thousandth": 10**3, "millionth": 10**6, "billionth": 10**9}
# "second" is a time, and "quarters" behind digits are coins.
DENOMINATORS = {"half": 2, "quarter": 4} | {
    word: value
    for word, value in (SMALL_ORDINALS | TENS_ORDINALS | ORDINAL_SCALES).items()
    if value > 2
}
PLURAL_DENOMINATORS = {"halves": 2} | {f"{w}s": v for w, v in DENOMINATORS.items() if w != "half"}
NUMBER_WORDS = {*SMALL, *TENS, *SCALES, *PLURAL_SCALES, *SMALL_ORDINALS, *TENS_ORDINALS}
NUMBER_WORDS |= {*ORDINAL_SCALES, *DENOMINATORS, *PLURAL_DENOMINATORS, "hundred", "hundreds"}

_UNITS = {
    "dollar": "$ dollar dollars usd buck bucks",
    "euro": "€ euro euros eur",
    "pound": "£ pound pounds gbp lb lbs",
    "yen": "¥ yen jpy",
    "rupee": "₹ rupee rupees inr",
    "cent": "¢ cent cents",
    "second": "sec secs second seconds",
    "minute": "min mins minute minutes",
    "hour": "h hr hrs hour hours",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "yr yrs year years",
    "millimetre": "mm millimeter millimeters millimetre millimetres",
    "centimetre": "cm centimeter centimeters centimetre centimetres",
    "metre": "meter meters metre metres",
    "kilometre": "km kilometer kilometers kilometre kilometres",
    "inch": "inch inches",
    "foot": "ft foot feet",
    "yard": "yd yds yard yards",
    "mile": "mi mile miles",
    "gram": "g gram grams",
    "milligram": "mg milligram milligrams",
    "kilogram": "kg kgs kilogram kilograms",
    "ounce": "oz ounce ounces",
    "litre": "l liter liters litre litres",
    "millilitre": "ml milliliter milliliters millilitre millilitres",
    "degree": "° degree degrees",
    "degree c": "celsius centigrade",
    "degree f": "fahrenheit",
    "kilometre per hour": "kmh kph",
    "mile per hour": "mph",
}
UNIT_OF = {alias: unit for unit, aliases in _UNITS.items() for alias in aliases.split()}
CURRENCIES = frozenset("$€£¥₹")
CODES = _words("usd eur gbp jpy inr")  # stand before a number as signs do
DEGREES = {"c": "c", "celsius": "c", "centigrade": "c", "f": "f", "fahrenheit": "f"}
PERCENT = frozenset(("%", "percent", "pct"))

# With one of these anywhere the number is not what the text says: "not 5", "more than 5".
DENYING = _words(
    "not never cannot neither than least plus minus negative squared cubed factorial sqrt root pi "
    "infinity double triple twice thrice divided multiplied point dozens hundreds thousands "
    "millions billions trillions tens sixes"
)
DENYING |= {f"{word}s" for word in {*SMALL, *TENS} - {"one", "six"}}
DENYING |= {f"{word[:-1]}ies" for word in TENS}
# Between two numbers these alone make one of both, or tell one of the other: "2 times 2", "2 of 2".
LINKING = _words("and or to vs versus through times by over out of per for into mod choose less")
# Right behind a number these change it: times of the day, eras, pairs, scales of other tongues.
CHANGING = re.compile(
    r"am|pm|o'clock|bce?|ce|pairs?|couples?|scores?|gross|fold|ish|thou|percentage|basis|bps|"
    r"tausend|mille?|milh?(?:oes|ões)|mi?lli?arden?|mio|mrd|mln|bln|mil|mill|odd|something|"
    r"[a-z]*illi(?:on|ard)[a-zé]*|[a-z]*ill[oó]n(?:es)?|billones|hundred[a-z]+"
)
MONTHS = _words(
    "january february march april may june july august september october november december "
    "jan feb mar apr jun jul aug sep sept oct nov dec"
)
