"""quantize_texts.py COUNT: sentences for bench/quantize_accuracy.py that guided no design: made by rules from common
words, each of another topic, length and form, the same ones every time."""
import random
import sys

WHO = ["The committee", "My grandmother", "A retired engineer", "Two students", "The port authority", "Our neighbour's dog",
       "An unnamed source", "The youngest violinist", "Every second patient", "The night shift", "A flock of starlings",
       "The translator", "Nobody in the village", "The new compiler", "A cold front", "The central bank"]
DID = ["postponed", "quietly repaired", "could not explain", "sold", "has been studying", "painted over", "doubled", "rejected",
       "found", "is still waiting for", "measured", "forgot to mention", "outgrew", "will publish", "denied", "carried home"]
WHAT = ["the report on river levels", "three broken bicycles", "a recipe for rye bread", "the price of copper",
        "an early draft of the treaty", "the side effects of the vaccine", "a memory leak in the parser",
        "the last train to Porto", "a jar of apricot jam", "the museum's east wing", "an orbit around Jupiter",
        "the school's insurance policy", "a goal in extra time", "seven hundred letters", "the lighthouse keeper's diary",
        "the interest on the loan"]
WHEN = ["", " before dawn", " in the summer of 1987", ", according to two witnesses", " despite the rain", " for the third time",
        " without asking anyone", " because the power had failed, which nobody noticed until the freezer had thawed",
        " on the way to the airport", " at a temperature of minus 40 degrees"]
ASK = ["How do I {}?", "Is it true that {}?", "{} - what happened next?", "Why does it matter whether {}?", "{}.", "{}!"]


def main(count):
    draw = random.Random(8)
    seen = set()
    while len(seen) < count:
        clause = f"{draw.choice(WHO)} {draw.choice(DID)} {draw.choice(WHAT)}{draw.choice(WHEN)}"
        if draw.random() < 0.25:
            clause += f", and {draw.choice(WHO).lower()} {draw.choice(DID)} {draw.choice(WHAT)}"
        text = draw.choice(ASK[3:] + ["{}."] * 6).format(clause)
        if text not in seen:
            seen.add(text)
            print(text)


main(int(sys.argv[1]))
