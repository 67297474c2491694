"""The ten genres: the tempos, rhythms, harmonies, instruments and forms that each can use."""

from dataclasses import dataclass
from typing import NamedTuple

SCALES = {  # semitones above the tonic
    "blues": (0, 3, 5, 6, 7, 10),
    "chant": (0, 0, 0, 3),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 11),
    "pentatonic": (0, 2, 4, 7, 9),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
}
CHORD_QUALITIES = {  # semitones above the root
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "7": (0, 4, 7, 10),
    "m7": (0, 3, 7, 10),
    "M7": (0, 4, 7, 11),
    "5": (0, 7, 12),
}
NOTES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")


class Melody(NamedTuple):
    """The pitches and rhythm of a lead melody."""

    scale: str
    grid: int
    """Steps between two positions where a note may start."""
    density: float
    """Probability that a note starts at such a position."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """The options of a genre; in each field except the tempo, all are equally likely."""

    tempo: tuple[float, float]
    """Slowest and fastest, in beats per minute."""
    swing: tuple[float, ...]
    """Delay of the off-beat eighth, in sixteenths; 0.67 makes triplets."""
    groove: tuple[str, ...]
    """DRUM:PATTERN, each of 16 steps (one bar): x is a hit, o a soft hit."""
    chords: tuple[str, ...]
    """One chord per bar, in C."""
    comping: tuple[str, ...]
    """16 steps: x is the chord, o a soft chord, a its next note alone, - holds."""
    bass: tuple[str, ...]
    """16 steps: r, 3, 5 and 8 are root, third, fifth and octave, w is any note of the chord, - holds."""
    comping_voice: tuple[str, ...]
    bass_voice: tuple[str, ...]
    lead_voice: tuple[str, ...]
    melody: tuple[Melody, ...]
    form: tuple[str, ...]
    """The parts in each bar: D(rums), B(ass), C(omping), L(ead)."""
    dynamics: tuple[float, ...] = (0.1, 0.2)
    """Depth of the swell in loudness over four bars, 0 to 1."""


STYLES = {
    "blues": Style(
        tempo=(64, 126),
        swing=(0.67, 0.67, 0.55),
        groove=(
            "K:x.......x....... S:....x.......x... H:x.x.x.x.x.x.x.x.",
            "K:x.......x.x..... S:....x.......x... R:x.x.x.x.x.x.x.x.",
            "K:x.......x....... B:....x.......x... H:....x.......x...",
        ),
        chords=("C7 C7 C7 C7 F7 F7 C7 C7 G7 F7 C7 G7", "C7 F7 C7 C7 F7 F7 C7 C7 G7 F7 C7 G7"),
        comping=("x-..x-..x-..x-..", "x.o.x.o.x.o.x.o.", "x-.ox-.ox-.ox-.o"),
        bass=("r.r.3.3.5.5.8.8.", "r-..3-..5-..w-..", "r-....r-5-....5-"),
        comping_voice=("guitar", "piano", "organ"),
        bass_voice=("upright bass", "electric bass"),
        lead_voice=("guitar", "harmonica", "harmonica"),
        melody=(Melody("blues", 2, 0.5), Melody("blues", 1, 0.35)),
        form=("DBCL DBCL DBCL DBC", "DBCL DBC"),
    ),
    "classical": Style(
        tempo=(60, 132),
        swing=(0.0,),
        groove=("",),
        chords=("C F G C Am Dm G C", "Am Dm E Am F Dm E Am", "C G Am Em F C Dm G"),
        comping=("a-a-a-a-a-a-a-a-", "x---------------", "x-------x-------", "aaaaaaaaaaaaaaaa"),
        bass=("r---------------", "r-------5-------", "r---3---5---3---"),
        comping_voice=("strings", "piano", "flute"),
        bass_voice=("cello", "cello", "upright bass"),
        lead_voice=("fiddle", "flute", "strings", "piano", "brass"),
        melody=(Melody("major", 2, 0.6), Melody("minor", 2, 0.6), Melody("major", 4, 0.7)),
        form=("BCL", "CL BCL BCL L", "BCL BCL CL BC"),
        dynamics=(0.5, 0.7),
    ),
    "country": Style(
        tempo=(88, 150),
        swing=(0.0, 0.2),
        groove=(
            "K:x.......x....... S:....x.......x... H:..x...x...x...x.",
            "K:x...x...x...x... B:ooxoooxoooxoooxo",
            "K:x.......x....... X:....x.......x...",
        ),
        chords=("C C F C C C G C", "C F C G C F G C", "G C G D G C D G"),
        comping=("..x...x...x...x.", "a.a.x.a.a.a.x.a.", "a.axa.axa.axa.ax"),
        bass=("r-......5-......", "r---....5---....", "r---....5---3---"),
        comping_voice=("guitar", "banjo", "banjo"),
        bass_voice=("upright bass", "electric bass"),
        lead_voice=("fiddle", "steel", "steel"),
        melody=(Melody("pentatonic", 2, 0.55), Melody("major", 4, 0.6)),
        form=("DBCL DBCL DBCL DBC", "DBCL"),
    ),
    "disco": Style(
        tempo=(110, 130),
        swing=(0.0,),
        groove=(
            "K:x...x...x...x... S:....x.......x... O:..x...x...x...x.",
            "K:x...x...x...x... C:....x.......x... O:..x...x...x...x. H:x.o.x.o.x.o.x.o.",
            "K:x...x...x...x... S:....x.......x... H:xxoxxxoxxxoxxxox",
        ),
        chords=("Am7 Dm7 G7 CM7", "Am7 Am7 Dm7 E7", "FM7 G7 Em7 Am7"),
        comping=("x.oxxox.x.oxxox.", "x.xx.xx.x.xx.xx.", "x-------x-------"),
        bass=("r.8.r.8.r.8.r.8.", "r...r.8.r...r.8.", "..r8..r8..r8..r8"),
        comping_voice=("strings", "strings", "guitar"),
        bass_voice=("electric bass", "synth bass"),
        lead_voice=("strings", "voice", "brass"),
        melody=(Melody("dorian", 2, 0.45), Melody("minor", 4, 0.6)),
        form=("DBCL DBCL DBCL DBC", "DBC DBCL DBCL DB"),
    ),
    "hiphop": Style(
        tempo=(78, 102),
        swing=(0.15, 0.3),
        groove=(
            "K:x.....x..x...... S:....x.......x... H:x.x.x.x.x.x.xx.x",
            "K:x..x......x..... C:....x.......x... H:x.x.x.xxx.x.x.x.",
            "K:x.x.......xx.... S:....x.o.....x..o H:xxxxxxxxxxxxxxxx",
        ),
        chords=("Cm Cm Ab Ab", "Am7 Am7 FM7 E7", "Dm7 Dm7 Dm7 Am7", "Cm"),
        comping=("x---------......", "a..a..a...a.....", "x.....x..x......"),
        bass=("r-----r-..r-....", "r--r------5-....", "r-........r-r-.."),
        comping_voice=("epiano", "strings", "piano"),
        bass_voice=("sub bass", "synth bass"),
        lead_voice=("voice", "square"),
        melody=(Melody("chant", 1, 0.7), Melody("chant", 1, 0.55)),
        form=("DBCL DBCL DBCL DL", "DBC DBCL DBL DBCL"),
    ),
    "jazz": Style(
        tempo=(104, 210),
        swing=(0.5, 0.67),
        groove=(
            "R:x...x.x.x...x.x. H:....x.......x...",
            "R:x...x.x.x...x.x. H:....x.......x... K:o.....o.......o. S:......o....o....",
            "B:x.oox.oxx.oox.ox H:....x.......x...",
        ),
        chords=("Dm7 G7 CM7 CM7", "CM7 Am7 Dm7 G7", "Cm7 F7 BbM7 EbM7 Am7 D7 Gm7 Gm7"),
        comping=("..x-......x.....", "x-....x-........", "......x-......x-", "x---------..x-.."),
        bass=("w-..w-..w-..w-..", "w---w---w---w---", "r-..w-..w-w-w-.."),
        comping_voice=("piano", "guitar", "organ"),
        bass_voice=("upright bass",),
        lead_voice=("brass", "flute", "piano", "guitar"),
        melody=(Melody("dorian", 2, 0.75), Melody("major", 2, 0.65), Melody("blues", 1, 0.45)),
        form=("DBCL DBCL DBCL DBC", "DBCL DBL", "BCL DBCL DBCL DB"),
        dynamics=(0.2, 0.4),
    ),
    "metal": Style(
        tempo=(96, 180),
        swing=(0.0,),
        groove=(
            "K:xxxxxxxxxxxxxxxx S:....x.......x... R:x...x...x...x...",
            "K:x.xxx.xxx.xxx.xx S:....x.......x... O:x...x...x...x...",
            "K:x.x.x.x.x.x.x.x. S:..x...x...x...x. R:x.x.x.x.x.x.x.x.",
        ),
        chords=("C5 C5 Db5 C5", "C5 Eb5 Db5 Gb5", "A5 F5 G5 A5", "C5 C5 C5 Bb5"),
        comping=("x.xxx.xxx.xxx.xx", "xxxxxxxxxxx-x-x-", "x.x.xxx.x.x.xxx."),
        bass=("r.rrr.rrr.rrr.rr", "rrrrrrrrrrrrrrrr", "r-r-r-r-r-r-r-r-"),
        comping_voice=("fuzz",),
        bass_voice=("electric bass", "synth bass"),
        lead_voice=("fuzz", "crunch", "voice"),
        melody=(Melody("phrygian", 1, 0.8), Melody("minor", 1, 0.6)),
        form=("DBC DBC DBCL DBCL", "DBC DBC DBC C"),
    ),
    "pop": Style(
        tempo=(92, 132),
        swing=(0.0, 0.0, 0.15),
        groove=(
            "K:x.......x.x..... S:....x.......x... H:x.x.x.x.x.x.x.x.",
            "K:x...x...x...x... C:....x.......x... H:..x...x...x...x.",
            "K:x..x..x.x..x..x. S:....x.......x... H:xoxoxoxoxoxoxoxo",
        ),
        chords=("C G Am F", "Am F C G", "F G C Am", "C Am F G"),
        comping=("x---x---x---x---", "x..x..x...x..x..", "x---------------", "a.a.a.a.a.a.a.a."),
        bass=("r.r.r.r.r.r.r.r.", "r-----r-r-----r-", "r---------------"),
        comping_voice=("saw", "epiano", "piano"),
        bass_voice=("synth bass", "electric bass", "sub bass"),
        lead_voice=("voice", "saw", "square"),
        melody=(Melody("pentatonic", 2, 0.55), Melody("major", 2, 0.45)),
        form=("DBCL DBCL DBCL DBCL", "BCL BCL DBCL DBCL"),
    ),
    "reggae": Style(
        tempo=(64, 92),
        swing=(0.0, 0.3),
        groove=(
            "K:........x....... X:........x....... H:..x...x...x...x.",
            "K:x...x...x...x... X:........x....... H:x.o.x.o.x.o.x.o.",
            "K:........x....... S:........x......o H:x.xxx.xxx.xxx.xx T:..............o.",
        ),
        chords=("C F C F", "Am G Am G", "Am Dm Am Em", "C Dm C G"),
        comping=("..x...x...x...x.", "..xo..xo..xo..xo", ".axa.axa.axa.axa"),
        bass=("r-..r-3-..5-....", "..r-r-..3-5-8-..", "r-r-..5-....3-.."),
        comping_voice=("organ", "organ", "guitar"),
        bass_voice=("sub bass", "electric bass"),
        lead_voice=("voice", "brass"),
        melody=(Melody("pentatonic", 2, 0.4), Melody("dorian", 4, 0.6)),
        form=("DBCL DBCL DBC DBC", "DBCL DBCL DB DBC"),
    ),
    "rock": Style(
        tempo=(104, 156),
        swing=(0.0,),
        groove=(
            "K:x.......x.x..... S:....x.......x... H:x.x.x.x.x.x.x.x.",
            "K:x.....x.x....... S:....x.......x... O:x...x...x...x...",
            "K:x..x....x.x..... S:....x.......x... R:x.x.x.x.x.x.x.x. T:..............oo",
        ),
        chords=("C Bb F C", "A5 D5 E5 D5", "Am G F G", "C F G F"),
        comping=("x.x.x.x.x.x.x.x.", "x-----x-x-----x-", "x---x-x-....x-x-"),
        bass=("r.r.r.r.r.r.r.r.", "r-----r-r-----r-", "r.r.r.r.5.5.8.8."),
        comping_voice=("crunch", "crunch", "organ"),
        bass_voice=("electric bass",),
        lead_voice=("crunch", "voice", "fuzz"),
        melody=(Melody("pentatonic", 2, 0.5), Melody("blues", 1, 0.4)),
        form=("DBCL DBCL DBCL DBC", "DBC DBC DBCL DBCL"),
    ),
}
GENRES = tuple(STYLES)
