"""What random inputs for ``tools/fuzz.py`` look like: valid ones with wrong parts, and nonsense."""

from __future__ import annotations

import json

from hypothesis import strategies as st


def cut(text: str, place: int) -> tuple[str, str]:
    return text[:place], text[place:]


VOCABULARY = """
image label fold training validation test modality channel_names labels file_ending images/a.nii images/b.nii
images/c.nii.gz labels/a.nii labels/b.nii images . .. /none ./images/a.nii T1 t1ce FLAIR T2 edema et background 0 1 2 -1
1.5 999999999999 .nii.gz CT $x %y @z
"""
STEM_VOCABULARY = """
a A a_0000 a_0001 a_seg a_mask a_mask_1 img0001 label0001 x-t1n x-t1c x-t2w x-t2f x-seg x_t1 x_t1ce x_t2 x_flair x_seg
_seg - ö (1)
"""
WORDS = st.sampled_from(VOCABULARY.split())
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), WORDS)
JUNK = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
FILES = st.sampled_from(["images/a.nii", "images/b.nii", "./images/c.nii.gz", "images/d.nii"])
ENTRIES = st.fixed_dictionaries(
    {"image": FILES | st.lists(FILES, min_size=1, max_size=4) | JUNK},
    optional={"label": st.sampled_from(["labels/a.nii", "labels/b.nii"]) | JUNK, "fold": st.integers(0, 2) | JUNK},
)
SECTIONS = st.lists(ENTRIES | FILES | JUNK, max_size=5) | JUNK
NAMES = st.dictionaries(st.sampled_from("0123") | WORDS, WORDS, max_size=4) | JUNK
LISTS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("training", "validation", "test"), SECTIONS),
        **dict.fromkeys(("modality", "channel_names", "labels"), NAMES),
        "file_ending": WORDS,
    },
)
GOOD = {
    "training": [{"image": f"images/{name}.nii", "label": f"labels/{name}.nii"} for name in "ae"],
    "modality": {"0": "CT"},
    "labels": {"0": "background", "1": "liver"},
    "test": ["images/c.nii.gz"],
}
NEARLY_GOOD = LISTS.flatmap(
    lambda wrong: st.sampled_from([[], *([key] for key in wrong)]).map(
        lambda taken: {**GOOD, **{key: wrong[key] for key in taken}}
    )
)
TEXTS = st.one_of(
    NEARLY_GOOD.map(json.dumps),
    LISTS.map(json.dumps),
    JUNK.map(json.dumps),
    st.text(max_size=60),
    st.sampled_from([10, 1000, 100_000]).map(lambda depth: "[" * depth),
    st.tuples(LISTS.map(json.dumps), st.integers(0, 300), st.text(max_size=3)).map(lambda t: t[2].join(cut(*t[:2]))),
).map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=60)
CELLS = WORDS | st.text(max_size=6) | st.sampled_from(["case", "image", "epoch", '"', "x,y"])
GOOD_TABLE = [["case", "image", "epoch"], ["x", "images/a.nii", "1"], ["y", "images/c.nii.gz", "2"]]
TABLES = st.tuples(
    st.lists(st.lists(CELLS, max_size=5), max_size=5).flatmap(lambda rows: st.sampled_from([rows, GOOD_TABLE + rows])),
    st.sampled_from(",;\t"),
).map(lambda t: "\n".join(t[1].join(row) for row in t[0]).encode("utf-8", "surrogatepass"))
PATHS = st.lists(
    st.sampled_from(["imagesTr", "labelsTr", "images", "masks", "img", "label", "0", "case_1", "BraTS-1", "ä b"]),
    max_size=3,
)
STEMS = st.sampled_from([*STEM_VOCABULARY.split(), "", "a b", "a" * 200])
ENDINGS = st.sampled_from([".nii", ".nii.gz", ".NII.GZ", ".png", ".jpg", ".tif", ".bmp", ".txt", ""])
KINDS = st.sampled_from(["volume", "volume", "4-D", "other size", "2-D", "empty", "garbage", "folder"])
FOLDERS = st.lists(st.tuples(PATHS, STEMS, ENDINGS, KINDS), max_size=8)
CONTENTS = st.binary(max_size=40) | st.tuples(st.integers(0, 4000), st.binary(max_size=4))
CHANGES = st.lists(
    st.tuples(
        st.integers(0, 200),
        st.sampled_from(["drop", "rename", "value", "shape", "type", "key"]),
        JUNK | st.lists(st.integers(0, 4), max_size=5),
    ),
    max_size=3,
)
