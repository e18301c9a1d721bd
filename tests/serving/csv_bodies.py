"""Tables as text for the model of five columns in conftest.py, by what is special about them.

``CSV`` are to be answered as MLflow answers them, ``CSV_DIFFERENCES`` not.
"""

HEADER = "d,l,s,b,f"
ROW = "1.5,2,x,True,0.25"


def table(*rows, header=HEADER, end="\n"):
    return end.join([header, *rows, ""])


def field(name, value):
    """Return a table of one row with a value in the column ``name``."""
    return table(",".join(value if name == at else good for at, good in zip("dlsbf", ROW.split(","), strict=True)))


FLOATS = (
    *("1", " 1 ", "+1", "-1", "--1", "- 1", "1.", ".5", ".", "1e3", "1E3", "1e", "1e+", "1e400", "-1e400", "1e-400"),
    *("0x10", "1_0", "1d3", "1f", "1e5e5", "1 e5", "１", "\xa01", "1\x0b", "00012", "0." + "0" * 300 + "1", "e5", "-"),
    *("inf", "-inf", "+inf", "Infinity", "iNf", " inf", "nan", "NaN", "NAN", " nan", "", " ", "NA", "null", "N/A"),
    *("true", "False", "TRUE", "yes", "0.1", "123456789.123456789123456789", "1e22", "9007199254740993"),
)
INTEGERS = (
    *("0", " 7 ", "+7", "-7", "7.0", "7.5", "7.", "1e3", "1e-3", "1_0", "0x7", "", "NA", "true", "False", "abc", "٣"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "1e30", "inf"),
    *("18446744073709551616", "9" * 500, "9223372036854775807.0"),
)
BOOLEANS = (
    "True",
    "true",
    "TRUE",
    "tRuE",
    "False",
    "false",
    "fALSE",
    "1",
    "0",
    "1.0",
    "0.0",
    "2",
    "",
    "yes",
    " True",
    "t",
)
TEXTS = (
    "x",
    " x",
    "",
    "1",
    "True",
    "'x'",
    '"x"',
    '"x,y"',
    '"x""y"',
    'x"y',
    '"x"y',
    '"x\ny"',
    '"x\r\ny"',
    "ünï",
    "#x",
    "x\x00y",
)

CSV = (
    {f"double {value[:30]!r}": field("d", value) for value in FLOATS}
    | {f"float {value!r}": field("f", value) for value in ("1e39", "0.1", "16777217", "", "true", "x")}
    | {f"long {value[:30]!r}": field("l", value) for value in INTEGERS}
    | {f"boolean {value!r}": field("b", value) for value in BOOLEANS}
    | {f"string {value!r}": field("s", value) for value in TEXTS if value}
    | {
        "one row": table(ROW),
        "two rows": table(ROW, "2,3,y,False,1"),
        "no line end": table(ROW).rstrip(),
        "CRLF": table(ROW, ROW, end="\r\n"),
        "CR": table(ROW, ROW, end="\r"),
        "a byte order mark": "\ufeff" + table(ROW),
        "a byte order mark and quotes": '\ufeff"d",l,s,b,f\n' + ROW,
        "quotes around everything": '"d","l","s","b","f"\n"1.5","2","x","True","0.25"\n',
        "quotes that stay open": table('1.5,2,"x,True,0.25'),
        "empty lines": f"\n\n{HEADER}\n\n{ROW}\n \n\t\n{ROW}\n\n",
        "another order": "b,s,l,d,f\nTrue,x,2,1.5,0.25\n",
        "an extra column": table(ROW + ",9", header=HEADER + ",extra"),
        "an index, as pandas writes it": table("0," + ROW, header="," + HEADER),
        "a column missing": table("1.5,2,x,0.25", header="d,l,s,f"),
        "the optional column missing": table("1.5,2,x,True", header="d,l,s,b"),
        "a column twice": table(ROW + ",9", header=HEADER + ",d"),
        "a column twice, the other as no number": table(ROW + ",abc", header=HEADER + ",d"),
        "a space before a name": table(ROW, header="d, l,s,b,f"),
        "names in capitals": table(ROW, header="D,L,S,B,F"),
        "a short row": table(ROW, "1.5,2,x,True"),
        "a short row without a boolean": table(ROW, "1.5,2,x"),
        "a long second row": table(ROW, ROW + ",9"),
        "semicolons": table(ROW).replace(",", ";"),
        "no header": ROW,
        "nothing": "",
        "a line end": "\n",
        "missing among doubles": table(ROW, ",2,x,True,0.25", "NA,2,x,True,0.25"),
        "missing among longs": table(ROW, "1.5,,x,True,0.25"),
        "missing among booleans": table(ROW, "1.5,2,x,,0.25"),
        "true among doubles": table(ROW, "true,2,x,True,0.25"),
        "true and false for doubles, and missing": table("true,2,x,True,1", "false,2,x,True,1", ",2,x,True,1"),
        "true and false for longs": table("1,true,x,True,1", "1,false,x,True,1"),
        "true, and missing, for longs": table("1,true,x,True,1", "1,,x,True,1"),
        "0 and 1 for booleans": table("1,1,x,0,1", "1,1,x,1,1"),
        "1 and true for booleans": table("1,1,x,1,1", "1,1,x,true,1"),
        "0 and 1 and missing for booleans": table("1,1,x,0,1", "1,1,x,,1"),
        "floats and whole floats for longs": table("1,1.0,x,True,1", "1,2,x,True,1", "1,1e2,x,True,1"),
    }
)

CSV_DIFFERENCES = {
    "a first row longer than the header": (table("9," + ROW), "a shifted row"),
    "a missing string": (field("s", ""), "no text"),
    "a word for a missing string": (field("s", "NA"), "no text"),
    "a missing string in quotes": (field("s", '""'), "no text"),
    "no rows": (table(), "no rows"),
}
"""As ``DIFFERENCES`` of tables.py."""
