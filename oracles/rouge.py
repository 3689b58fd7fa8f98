"""Makes crates/distil/tests/fixtures/rouge.jsonl and porter.tsv from the reference implementations.

    pip install rouge-score==0.1.2 nltk==3.10.4
    python oracles/rouge.py

rouge.jsonl, one object a line: references, prediction, and [precision, recall, fmeasure] of ROUGE-L
with the Porter stemmer (`stemmed`) and without (`plain`), the best of the references. The numbers are
strings in Python's shortest exact form, because not every JSON reader keeps the last bit.
porter.tsv: word, tab, its stem by nltk's PorterStemmer in its default mode.
All texts are composed here from the word lists below, with a fixed seed.
"""

import json
import os
import random
from pathlib import Path

from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer

FIXTURES = Path(__file__).resolve().parent.parent / "crates/distil/tests/fixtures"

STEMS = """
relat condition valenc hesit digit conform radic differ vile analog vietnam predic oper feudal
decis hope callous formal sensit sensib triplic form electr good reviv allow infer airlin gyroscop
adjust defens irrit replac depend adopt homolog commun activ angular effect bowdler prob rat ceas
control roll hop tann fall hiss fizz fail fil siz troubl conflat plaster bl motor sing feed agre
pon t caress cat happ sk fl tr enjo sp spr pl str geo theo archaeo bio philo log use care thank
run stop plan travel begin swim danc writ mak tak giv liv lov mov stud carr hurr cop dr cr
argu valu continu issu rescu lie die tie vie see free flee tree knee employ toy syzyg yy yoyo
organ nation ration person industri glob loc foc virt act creat educ inform present connect
""".split()

SUFFIXES = """
s es ies sses ss ed ied eed ing ying at ated ating bled bling ized izing y ly ily ally fully ously
ational tional enci ency anci ancy izer ization ation ator alism iveness fulness ousness aliti ality
iviti ivity biliti bility bly ably ibly entli ently eli ely logi logy ologist ological icate ative
alize iciti icity ical ful ness less al ance ence er ic able ible ant ement ment ent ion sion tion
ou ism ate iti ous ive ize e ee ll lled lling l er ers ist ists ish ship ward wise 1 2nd
""".split()

SPECIAL = """
sky skies dying lying tying news innings inning outings outing cannings canning howe proceed exceed
succeed dies died ties tied lies lied flies spied ied ies eed ing ed s ss sses y yy yyy yyyy ayy
bee bees seed weed exceeds succeeds proceeding generically oscillators rate cease roll controll
falling hissing fizzed failing filing hopping tanned sized troubled ll all ball balll ell eel
ion lion million passion option opinion union onion sion tion ement cement element agreement
sensational rational national conditional happy enjoy enjoyment employee by say cry try
abcd1234 1234 12s 1s3ed 42nd x1ing aaaa aing uing oed axed boxing bowed played snowing mixing
""".split()

NAMES = "Łódź Zürich İstanbul São-Paulo 東京 Москва Ελλάδα naïve café Straße ﬁne Ⅳ ① K K Å".split()
PUNCTUATION = [",", ".", "!", "?", ";", " -", "...", '"', "'s", "n't", " &", "/", "_", "\u2019", "\u2014"]
SPACES = [" ", " ", " ", " ", " ", " ", "  ", "\n", "\t", "\n\n", "\u00a0", "\u2009", "\r\n"]
SMALL = "the a an of in on at to and or not it is was we they he she i you no yes so".split()
NUMBERS = "0 1 7 12 100 2024 3.14 1,000 50% 4x4 -5 1e-3".split()


def words():
    made = [stem + suffix for stem in STEMS for suffix in SUFFIXES]
    return sorted(set(made))


def sentence(rng, vocabulary, length):
    text = ""
    for _ in range(length):
        kind = rng.random()
        if kind < 0.35:
            word = rng.choice(SMALL)
        elif kind < 0.88:
            word = rng.choice(vocabulary)
        elif kind < 0.94:
            word = rng.choice(NUMBERS)
        else:
            word = rng.choice(NAMES)
        case = rng.random()
        word = word.upper() if case < 0.05 else word.capitalize() if case < 0.2 else word
        text += word + (rng.choice(PUNCTUATION) if rng.random() < 0.15 else "") + rng.choice(SPACES)
    return text if rng.random() < 0.3 else text.strip()


def variation(rng, text, vocabulary):
    """A text that shares words with `text`: some dropped, doubled, moved, inflected, replaced."""
    made = []
    for word in text.split(" "):
        kind = rng.random()
        if kind < 0.12:
            continue
        if kind < 0.22:
            word = rng.choice(vocabulary)
        elif kind < 0.40:
            word = word.rstrip("s") + rng.choice(["s", "ed", "ing", "ly", "er", "ness", "ation", ""])
        elif kind < 0.46:
            word = word + " " + word
        made.append(word)
    if made and rng.random() < 0.4:
        cut = rng.randrange(len(made))
        made = made[cut:] + made[:cut]
    return " ".join(made)


def pairs(rng):
    # A small vocabulary per pair makes repeated words and many longest subsequences likely.
    everything = words()
    edges = ["", " ", "\n", ".", "a", "the", "cat", "cats", "running", "K", "İ", "ß", "東京", "日本 a",
             "yes", "Yes!", "no no no", "1", "2024", "a\u0301", "ﬁne", "don't", "x_y", "\ufeffcat"]
    for reference in edges:
        for prediction in rng.sample(edges, 5) + [reference]:
            yield [reference], prediction
    for index in range(440):
        if index % 3 == 0:
            vocabulary = rng.sample(everything, rng.choice([3, 10, 40]))
        else:
            # Several forms of few words, so that stemming changes what is common.
            stems, suffixes = rng.sample(STEMS, 4), rng.sample(SUFFIXES, 8)
            vocabulary = [stem + suffix for stem in stems for suffix in suffixes]
        length = rng.choice([1, 2, 4, 8, 12, 20, 40]) if index % 40 else 150
        reference = sentence(rng, vocabulary, length)
        kind = index % 4
        if kind == 0:
            prediction = sentence(rng, vocabulary, rng.choice([1, 5, 15, 30]))
        else:
            prediction = variation(rng, reference, vocabulary)
        references = [reference]
        if kind == 3:
            references += [variation(rng, reference, vocabulary) for _ in range(rng.choice([1, 2]))]
        yield references, prediction


def write(name, lines):
    """Writes the file whole or not at all."""
    path = FIXTURES / name
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")
    os.replace(temporary, path)
    print(name, len(lines), "lines", path.stat().st_size, "bytes")


def main():
    rng = random.Random(20)
    scorers = {
        "stemmed": rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True),
        "plain": rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False),
    }
    lines = []
    for references, prediction in pairs(rng):
        case = {"references": references, "prediction": prediction}
        for name, scorer in scorers.items():
            score = scorer.score_multi(references, prediction)["rougeL"]
            case[name] = [repr(float(number)) for number in score]
        lines.append(json.dumps(case, ensure_ascii=False))
    write("rouge.jsonl", lines)

    stemmer = PorterStemmer()
    chosen = sorted(set(rng.sample(words(), 3500)) | set(SPECIAL))
    write("porter.tsv", [word + "\t" + stemmer.stem(word) for word in chosen])


if __name__ == "__main__":
    main()
