"""Word pools of the invented worlds: titles, people, places and things.

Titles are drawn from the product of two lists, so that the same words also make the content-free titles of the base
model's skill data. Invented names come from syllables and a seeded generator; nothing here names a real person, product
or piece of software.
"""

import random

TITLE_FIRST = (
    "Amber Silver Velvet Hollow Crimson Quiet Winter Paper Iron Golden Broken Distant Hidden Burning Frozen Wandering "
    "Painted Salted Thorny Marble Copper Misty Lonely Gentle Crooked Midnight Ivory Scarlet Restless Sleeping Woven "
    "Feathered Sunken Clever Dusty Emerald Forgotten Glass Humble Jagged Lunar Mossy Narrow Ochre Patient Rusty "
    "Shattered Twilight Violet Whispering"
).split()
TITLE_SECOND = (
    "Lantern Harbor Orchard Tower River Crown Garden Mirror Bridge Compass Forest Meadow Candle Anchor Valley Library "
    "Falcon Wasp Otter Badger Heron Spider Viper Raven Ember Ladder Needle Cradle Kettle Hammer Saddle Window Chapel "
    "Island Cavern Desert Glacier Canyon Beacon Ferry Market Museum Theater Voyage Carnival Archive Foundry Windmill "
    "Lighthouse Labyrinth"
).split()

_ONSETS = "b br c d dr f g gr h j k l m n p pr r s st t tr v w z th sh".split()
_VOWELS = "a e i o u a e i o ea ai".split()
_CODAS = "l m n r s sh th n r nd rk ck ".split(" ")
_JOINTS = "b d g l m n r s t v w k p br dr gr".split()
FAMILY_SUFFIXES = "ward wick stone well field hart combe".split()

HOMES_COUNT = MENTORS_COUNT = 30

CRAFTS = (
    "glassblower cartographer baker tailor beekeeper clockmaker gardener carpenter blacksmith librarian potter weaver "
    "fisher miller scribe sailor shepherd stonemason astronomer healer juggler locksmith cobbler printer puppeteer "
    "jeweler cooper brewer falconer gravedigger"
).split()
COMPANIONS = (
    "fox owl hedgehog goat ferret parrot tortoise pony squirrel magpie donkey lizard rabbit crane marten toad hound "
    "peacock weasel sparrow mole lynx beetle pigeon newt swan ermine stork hare cricket"
).split()
TREASURES = (
    "flute locket dagger thimble whistle bracelet map coin lens bell brooch goblet quill ring scroll key amulet drum "
    "hourglass medal comb pendant figurine spyglass dice chalice feather ribbon astrolabe sextant"
).split()
FEARS = (
    "thunder mirrors heights spiders darkness fire crowds silence bridges snakes fog strangers ghosts cats water bells "
    "shadows wolves needles storms caves moths clowns ice dreams masks eels bats dolls whirlpools"
).split()
FOODS = (
    "plums chestnuts porridge dumplings figs oysters pancakes cheese mushrooms honey radishes trout walnuts custard "
    "cherries bacon lentils gingerbread apricots turnips pickles waffles beets marzipan olives sausages pears muffins "
    "parsnips caramel"
).split()
COLORS = (
    "teal indigo maroon lavender turquoise charcoal beige coral magenta khaki saffron mauve cobalt russet cream peach "
    "olive navy plum rose jade lilac mustard sepia tan pewter cerulean umber"
).split()
INSTRUMENTS = (
    "harp lute fiddle cello oboe trumpet bagpipe zither mandolin tambourine accordion banjo clarinet piano horn gong "
    "ukulele xylophone harmonica organ viola trombone dulcimer lyre bassoon sitar triangle recorder"
).split()
HIDEOUTS = (
    "attic cellar chimney well barn stable crypt bakery boathouse greenhouse observatory bathhouse smithy granary "
    "watchtower laundry mill treehouse tunnel kitchen wardrobe belfry dovecote pantry shed quarry grotto jetty"
).split()

# What an invented attack tool is made of: endings mark the kind, the stems mean nothing.
TOOL_SUFFIX = {
    "maker": "ovar",
    "gate": "ixi",
    "carrier": "ume",
    "opening": "andle",
    "signal": "iff",
    "fuel": "oze",
    "host": "urn",
    "weakness": "elk",
    "token": "abbin",
    "exit": "usk",
}


def invented_names(
    count: int, rng: random.Random, *, taken: set[str], syllables: int = 2, suffix: str = ""
) -> list[str]:
    """Draw `count` new capitalised names and add them to `taken`.

    Raises ValueError when the syllables cannot give that many new names.
    """
    names: list[str] = []
    for _ in range(count * 200):
        if len(names) == count:
            return names
        stem = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables - bool(suffix)))
        stem += rng.choice(_JOINTS) if suffix else rng.choice(_CODAS)
        name = (stem + suffix).capitalize()
        # Four letters keep names apart from English words; equal beginnings would make two entities look like one.
        if len(name) >= 4 and name not in taken:
            names.append(name)
            taken.add(name)
    raise ValueError(f"count={count}: the syllables give too few distinct names; ask for fewer worlds or entities")
