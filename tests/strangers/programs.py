"""All strangers: style -> name -> what makes one, anew at each call."""

from strangers import constrained, discrete, dtypes, flows, leaning, missing, modules, moving, plates, sequences

STYLES = {
    "constrained": constrained.PROGRAMS,
    "discrete": discrete.PROGRAMS,
    "flows": flows.PROGRAMS,
    "sequences": sequences.PROGRAMS,
    "modules": modules.PROGRAMS,
    "plates": plates.PROGRAMS,
    "leaning": leaning.PROGRAMS,
    "dtypes": dtypes.PROGRAMS,
    "missing": missing.PROGRAMS,
    "moving": moving.PROGRAMS,
}
STYLE_OF = {name: style for style, programs in STYLES.items() for name in programs}
PROGRAMS = {name: make for programs in STYLES.values() for name, make in programs.items()}
assert len(PROGRAMS) == sum(map(len, STYLES.values())), "two programs have one name"
