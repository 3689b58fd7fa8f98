"""Makes crates/distil/tests/fixtures/text_metrics.jsonl and text_corpora.jsonl from the reference implementations.

    pip install rouge-score==0.1.2 nltk==3.10.4 sacrebleu==2.6.0
    python oracles/text_metrics.py

text_metrics.jsonl, one row a line:
    references, answer
    words           of the answer: nltk's wordpunct tokens of the lower-cased text
    tokens_13a      of the answer: sacreBLEU's 13a tokens
    normalised      the answer as Super-NaturalInstructions compares it
    repetition      1 - different 4-grams / 4-grams, of the words
and, of rows with references:
    rouge           [precision, recall, fmeasure] of the best reference for rouge1, rouge2, rougeL, rougeLsum, in
                    this order first stemmed, then plain
    exact           whether it equals a reference
    nltk, bleu, chrf    the row's statistics as the packages count them, and the score of a corpus of this row alone;
                    of nltk the scores are BLEU-1 to BLEU-4
text_corpora.jsonl: the scores of several choices [start, stop, step] of rows, with sacreBLEU's signatures.
All texts are composed here from the invented fragments below, with a fixed seed.
"""

import json
import os
import random
import string
import warnings
from pathlib import Path

from nltk.tokenize import wordpunct_tokenize
from nltk.translate.bleu_score import closest_ref_length, corpus_bleu, modified_precision
from nltk.util import ngrams
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF

FIXTURES = Path(__file__).resolve().parent.parent / "crates/distil/tests/fixtures"
ROWS = 620

PLAIN = """
the a an of in on at to and or not it is was we they he she you no yes so with from under over
lamp lamps river rivers walk walked walking walks table tables carry carried carrying quickly slow slowly
garden gardens paint painted painter painters letter letters number numbers bridge bridges cold warm warmer
answer answers answered question questions model models teacher teachers student students learn learned learning
stone stones green blue window windows open opened opening happily happiness national nation relation relational
""".split()

# Each may break a tokenizer, a lower-casing or a count in its own way.
TRAPS = [
    "1,000", "1,000.50", "3.14", ".5", "5.", "-5", "2019-2020", "1-2-3", "10%", "$3.88", "1.2.3", "1.,2", "..1", ".,5", "1..2", "1...2", "a.5", "5.a",
    "1e-3", "4x4", "12:30", "1/2", "007", "3-", "-", "--", "---", "9-a", "٣٫١٤", "１２．３",
    "U.S.", "e.g.,", "etc.", "a.b.c", "end.", "end..", "...", "…", ". . .", "?!", "!!!", "(a)", "[b]", "{c}", "~", "`x`",
    "don't", "it's", "'tis", "rock'n'roll", "students'", '"quoted"', "“curly”", "‘single’", "«angled»", "„low“", "''", '""',
    "&quot;", "&amp;", "&lt;", "&gt;", "&amp;lt;", "&quot;x&quot;", "&nbsp;", "&#39;", "&", "a&b", "&amp;amp;", "AT&amp;T",
    "<skipped>", "<b>", "</b>", "<skip", "<skipped><skipped>", "co-\noperate", "well-known", "-\n", "x-\n\ny",
    "東京", "日本語です。", "你好，世界", "한국어", "カタカナ", "ﾊﾝｶｸ", "𠮷野家", "東京 タワー",
    "😀", "👍🏽", "👨‍👩‍👧", "🇩🇪", "✌️", "❤", "😀😀😀", "a😀b",
    "naïve", "nai\u0308ve", "café", "cafe\u0301", "Straße", "STRASSE", "ẞ", "ﬁne", "İstanbul", "ISTANBUL", "ıı", "Åse", "\u212b", "\u212a",
    "ΟΔΟΣ", "οδος", "ΣΑΣ ΣΑΣ", "Москва", "МОСКВА", "हिन्दी", "ภาษาไทย", "العربية", "שלום", "தமிழ்", "Ⅳ", "ⅳ", "①", "Ⓐ", "²", "x²", "½",
    "snake_case", "_", "__init__", "a_b_c", "camelCase", "x=y+1", "f(x)", "C++", "#tag", "@name", "a@b.example",
    "https://a.example/b?c=d&e=f", "\\frac{1}{2}", "a|b", "a/b", "^", "*bold*", "|", "\\", "/", "it’s", "a–b", "a—b", "a‑b", "‐",
    "zero\u200bwidth", "soft\u00adhyphen", "\ufeffmark", "no\u00a0break", "a\u2028b", "a\u2029b", "a\u0085b", "a\u1680b", "a\u3000b",
    "a\u001cb", "a\u001fb", "a\u000bb", "a\u000cb", "a\tb", "a\r\nb", "a\rb", "a\u0000b", "a\u0007b", "a\u200cb", "a\u200db", "\u202eabc",
    "\u0301", "\ufffd", "\U0010fffd", "؟", "،", "。", "、", "！", "「」", "・", "€5", "£", "©", "™", "°C", "×", "→",
]

SPACES = [" "] * 14 + ["  ", "\n", "\n\n", "\t", "\u00a0", "\u2009", "\r\n", " \n", "\n ", ""]
ENDS = ["", "", "", "", ".", "?", "!", " ", "  ", "\n", " \n\t", ".\n", "\u3000", " .", "\u001e", "\u200b", "-\n"]

EDGES = [
    "", " ", "\n", "\n\n", ".", "..", "...", "!?", "-", "--", "'", '"', "&", "&amp;", "<skipped>", "a", "A", "a b", "a b c", "a b c d",
    "a b c d e", "a a a a a a a a", "a b a b a b a b a b", "1", "1,000", "0.5", "\u200b", "\ufeff", "\u001f", "\u00a0", "\u3000", "東京",
    "日本 東京", "😀", "👨‍👩‍👧", "\u0301", "İ", "ß", "ΟΔΟΣ", "the", "The.", "the lamp", "cats", "running runner runs", "a.b", "a. b.\nc. d.",
    "one\ntwo\nthree", "three\ntwo\none", "_", "x_y", "abc", "abcdef", "abcdefg", "aaaaaaa", "\\n", "don't stop", "dont stop",
]


def word(rng, vocabulary):
    """A word of the vocabulary or a trap, sometimes in other case."""
    made = rng.choice(TRAPS) if rng.random() < 0.18 else rng.choice(vocabulary)
    case = rng.random()
    return made.upper() if case < 0.05 else made.capitalize() if case < 0.15 else made


def text(rng, vocabulary, length):
    parts = []
    for _ in range(length):
        parts.append(word(rng, vocabulary) + (rng.choice(",.;:!?") if rng.random() < 0.1 else ""))
        parts.append(rng.choice(SPACES))
    return "".join(parts[:-1]) + rng.choice(ENDS)


def variation(rng, original, vocabulary):
    """A text that shares runs of words, and stems of others, with `original`."""
    rate = rng.choice([0.0, 0.05, 0.15, 0.4])
    made = []
    for part in original.split(" "):
        kind = rng.random()
        if kind < rate / 3:
            continue
        if kind < rate * 2 / 3:
            part = word(rng, vocabulary)
        elif kind < rate:
            part = part + " " + part
        elif kind < rate + 0.06:
            part = part.rstrip("s") + rng.choice(["s", "ed", "ing", "ness"])
        made.append(part)
    if len(made) > 3 and rng.random() < 0.3:
        cut = rng.randrange(len(made))
        made = made[cut:] + made[:cut]
    joined = rng.choice([" ", " ", " ", " ", "  ", "\n"]).join(made)
    return joined + rng.choice(ENDS) if rng.random() < 0.4 else joined


def pairs(rng):
    for edge in EDGES:
        yield [edge], edge
        yield [rng.choice(EDGES)], edge
        yield [rng.choice(EDGES) for _ in range(rng.choice([2, 3]))], edge
    for trap in TRAPS:
        other = rng.choice(TRAPS)
        yield [f"{trap} {other}\nthe lamp {trap}"], f"the lamp {trap}{other} {trap}"
    for index in range(ROWS - 3 * len(EDGES) - len(TRAPS)):
        vocabulary = rng.sample(PLAIN, rng.choice([2, 6, 20, 60]))
        length = 120 if index % 50 == 7 else rng.choice([1, 2, 3, 5, 8, 12, 16, 25])
        reference = text(rng, vocabulary, length)
        answer = text(rng, vocabulary, rng.choice([1, 4, 10, 20])) if index % 6 == 0 else variation(rng, reference, vocabulary)
        references = [reference]
        if index % 3 == 1:
            references += [variation(rng, reference, vocabulary) for _ in range(rng.choice([1, 2, 3]))]
        if index % 12 == 5:
            references += [references[0], text(rng, vocabulary, 4)]
        if index % 40 == 11:
            references = []
        yield references, answer


def wordpunct(made):
    return wordpunct_tokenize(made.lower())


def repetition(words):
    grams = list(ngrams(words, 4))
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def distinct(answers, n):
    grams = [gram for answer in answers for gram in ngrams(wordpunct(answer), n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def normalised(made):
    """Lower case, no ASCII punctuation, single spaces: the order of Super-NaturalInstructions' evaluation."""
    kept = [letter for letter in made.lower() if letter not in string.punctuation]
    return " ".join("".join(kept).split())


def nltk_bleu(rows):
    weights = [(1 / n,) * n for n in range(1, 5)]
    references = [[wordpunct(reference) for reference in references] for references, _ in rows]
    return [float(score) for score in corpus_bleu(references, [wordpunct(answer) for _, answer in rows], weights)]


def nltk_sums(references, answer):
    references, answer = [wordpunct(reference) for reference in references], wordpunct(answer)
    precisions = [modified_precision(references, answer, n) for n in range(1, 5)]
    return (
        [len(answer), closest_ref_length(references, len(answer))]
        + [precision.numerator for precision in precisions]
        + [precision.denominator for precision in precisions]
    )


def sacrebleu(metric, rows):
    """The metric's statistics of each row, its score of all, and its signature."""
    most = max(len(references) for references, _ in rows)
    streams = [[references[i] if i < len(references) else None for references, _ in rows] for i in range(most)]
    answers = [answer for _, answer in rows]
    statistics = metric._extract_corpus_statistics(answers, streams)
    score = metric.corpus_score(answers, streams).score
    return statistics, score, str(metric.get_signature())


def write(name, lines):
    """Writes the file whole or not at all."""
    path = FIXTURES / name
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")
    os.replace(temporary, path)
    print(name, len(lines), "lines", path.stat().st_size, "bytes")


def main():
    # nltk warns of every row in which an order has no match.
    warnings.simplefilter("ignore")
    rng = random.Random(21)
    types = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorers = [rouge_scorer.RougeScorer(types, use_stemmer=stemmed) for stemmed in (True, False)]
    bleu, chrf = BLEU(force=True), CHRF()
    rows = list(pairs(rng))
    lines = []
    for references, answer in rows:
        case = {
            "references": references,
            "answer": answer,
            "words": wordpunct(answer),
            "tokens_13a": bleu._preprocess_segment(answer).split(),
            "normalised": normalised(answer),
            "repetition": repetition(wordpunct(answer)),
        }
        if references:
            scores = [scorer.score_multi(references, answer) for scorer in scorers]
            case["rouge"] = [[float(number) for number in score[name]] for score in scores for name in types]
            case["exact"] = any(normalised(reference) == case["normalised"] for reference in references)
            case["nltk"] = {"sums": nltk_sums(references, answer), "scores": nltk_bleu([(references, answer)])}
            for name, metric in (("bleu", bleu), ("chrf", chrf)):
                [sums], score, _ = sacrebleu(metric, [(references, answer)])
                case[name] = {"sums": sums, "scores": [float(score)]}
        lines.append(json.dumps(case, ensure_ascii=False, separators=(",", ":")))
    write("text_metrics.jsonl", lines)

    lines = []
    cuts = [[0, len(rows), 1], [0, len(rows), 7], [3, len(rows), 11], [0, 60, 1], [1, 3 * len(EDGES), 3], [400, 420, 1], [430, 620, 3]]
    for start, stop, step in cuts:
        chosen = rows[start:stop:step]
        answers = [answer for _, answer in chosen]
        chosen = [row for row in chosen if row[0]]
        _, bleu_score, bleu_signature = sacrebleu(bleu, chosen)
        _, chrf_score, chrf_signature = sacrebleu(chrf, chosen)
        corpus = {
            "rows": [start, stop, step],
            "nltk": nltk_bleu(chosen),
            "bleu": bleu_score,
            "bleu_signature": bleu_signature,
            "chrf": chrf_score,
            "chrf_signature": chrf_signature,
            "distinct": [distinct(answers, 1), distinct(answers, 2)],
        }
        lines.append(json.dumps(corpus))
    write("text_corpora.jsonl", lines)


if __name__ == "__main__":
    main()
