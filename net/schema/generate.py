#!/usr/bin/env python3
"""Reads net/schema/*.schema (see README.md there) and writes the C structs and
tables that base/codec.h works with.

usage: generate.py OUT_DIR FILE.schema...

For every file x.schema it writes OUT_DIR/x.h and OUT_DIR/x.c, and beside them
apis.h and apis.c with the table of APIs. A file whose content would stay the
same is left alone, so that nothing is compiled again without need.
"""
import os
import re
import sys

LATER = 127  # CODEC_VERSION_MAX: "and all later versions"

SCALARS = {  # notation: (C type, kind, fewest bytes: plain, compact)
    "bool": ("bool", "BOOL", 1, 1),
    "i8": ("int8_t", "I8", 1, 1),
    "i16": ("int16_t", "I16", 2, 2),
    "u16": ("uint16_t", "U16", 2, 2),
    "i32": ("int32_t", "I32", 4, 4),
    "i64": ("int64_t", "I64", 8, 8),
    "f64": ("double", "F64", 8, 8),
    "uuid": ("struct uuid", "UUID", 16, 16),
    "string": ("struct wire_str", "STRING", 2, 1),
    "bytes": ("struct wire_bytes", "BYTES", 4, 1),
    "records": ("struct wire_records", "RECORDS", 4, 1),
}


class Field:
    """One field: its type, and in which versions it is what."""

    def __init__(self, name, base, array, present, nullable, tag, plain,
                 default):
        self.name = name
        self.base = base  # a scalar's name or a struct's
        self.array = array
        self.present = present
        self.nullable = nullable  # range or None
        self.tag = tag  # number or None
        self.plain = plain
        self.default = default  # text or None


class Struct:
    def __init__(self, name, present):
        self.name = name
        self.present = present
        self.fields = []

    def ordered(self):
        """Fields as they are written: tagged ones last, by tag."""
        return ([f for f in self.fields if f.tag is None] +
                sorted((f for f in self.fields if f.tag is not None),
                       key=lambda f: f.tag))


class Message:
    def __init__(self, name, versions, flexible):
        self.name = name
        self.versions = versions
        self.flexible = flexible  # first flexible version, LATER for none
        self.body = Struct("", versions)
        self.structs = {}  # by name, in order of appearance


class Unit:
    """What one file holds."""

    def __init__(self, name):
        self.name = name
        self.messages = []
        self.api = None  # (key, name)
        self.offer = None
        self.now = False
        self.records = {}  # message name: record type


class Bad(Exception):
    pass


def parse_range(text):
    """"3" "3-5" "3+" to (first, last); "none" to None."""
    if text == "none":
        return None
    m = re.fullmatch(r"(\d+)(\+|-(\d+))?", text)
    if not m:
        raise Bad(f"versions {text!r}")
    first = int(m[1])
    last = LATER if m[2] == "+" else int(m[3] or first)
    if last < first:
        raise Bad(f"versions {text!r}")
    return first, last


def overlap(a, b):
    if a is None or b is None:
        return None
    r = max(a[0], b[0]), min(a[1], b[1])
    return r if r[0] <= r[1] else None


FIELD = re.compile(
    r"(?P<name>[a-z][a-z0-9_]*) "
    r"(?P<array>\[)?(?P<base>[a-z][a-z0-9_]*)(?(array)\])"
    r"(?P<null>\?(?P<nullable>\d[-+0-9]*)?)?"
    r"( (?P<versions>\d[-+0-9]*))?"
    r"( tag (?P<tag>\d+))?"
    r"(?P<plain> plain)?"
    r"( = (?P<default>\S+))?")


def parse_field(text, around):
    """`around`: the versions of what the field is in."""
    m = FIELD.fullmatch(text)
    if not m:
        raise Bad(f"field {text!r}")
    versions = parse_range(m["versions"]) if m["versions"] else around
    present = overlap(versions, around)
    if present is None:
        raise Bad(f"field {text!r} is in no version")
    nullable = None
    if m["null"]:
        nullable = parse_range(m["nullable"]) if m["nullable"] else present
        nullable = overlap(nullable, present)
    return Field(m["name"], m["base"], bool(m["array"]), present, nullable,
                 int(m["tag"]) if m["tag"] else None, bool(m["plain"]),
                 m["default"])


def parse_lines(unit, lines):
    header = {}
    message = None
    stack = []  # (indent of the fields, struct)
    for number, raw in lines:
        line = raw.split("#")[0].rstrip()
        if not line:
            continue
        indent = len(line) - len(line.lstrip())
        words = line.split()
        if indent == 0:
            if words[0] == "api":
                unit.api = int(words[1]), words[2]
                message = None
            elif words[0] in ("message", "record"):
                message = None
                header = {"name": words[1]}
                if words[0] == "record":
                    unit.records[words[1]] = int(words[2])
            elif words[0] in ("versions", "flexible"):
                header[words[0]] = words[1]
            elif words[0] == "offer":
                unit.offer = parse_range(words[1])
            elif words[0] == "now":
                unit.now = words[1] == "yes"
            elif words[0] in ("request", "response"):
                message = None
                header["name"] = f"{unit.api[1]}_{words[0]}"
            else:
                raise Bad(f"line {number}: {line!r}")
            if "name" in header and "flexible" in header and message is None \
                    and words[0] in ("flexible", "request", "response"):
                flexible = parse_range(header["flexible"])
                message = Message(header["name"],
                                  parse_range(header["versions"]),
                                  flexible[0] if flexible else LATER)
                unit.messages.append(message)
                stack = [(4, message.body)]
            continue
        try:
            parse_member(message, stack, indent, words, line.strip())
        except Bad as e:
            raise Bad(f"line {number}: {e}")


def parse_member(message, stack, indent, words, text):
    """A field, or `struct NAME [VERSIONS]` that opens one used by several."""
    while stack and stack[-1][0] > indent:
        stack.pop()
    if not stack or stack[-1][0] != indent:
        raise Bad("indentation")
    around = stack[-1][1]
    if words[0] == "struct":
        present = message.versions
        if len(words) > 2:
            present = overlap(present, parse_range(words[2]))
        opened = Struct(words[1], present)
        message.structs[words[1]] = opened
    else:
        field = parse_field(text, around.present)
        if field.name in [f.name for f in around.fields]:
            raise Bad(f"field {field.name} is there twice")
        around.fields.append(field)
        if field.base in SCALARS:
            return
        opened = Struct(field.base, field.present)
        message.structs.setdefault(field.base, opened)
    stack.append((indent + 4, opened))


def check(message):
    for s in [message.body] + list(message.structs.values()):
        if s is not message.body and not s.fields:
            raise Bad(f"{message.name}: struct {s.name} has no fields")
        tags = {}
        for f in s.fields:
            where = f"{message.name}: {s.name} {f.name}"
            if f.base not in SCALARS and f.base not in message.structs:
                raise Bad(f"{where}: no such type")
            if f.tag is not None and f.present[0] < message.flexible:
                raise Bad(f"{where}: tagged before it is flexible")
            for v in range(f.present[0], min(f.present[1], LATER - 1) + 1):
                if f.tag is not None and tags.setdefault((f.tag, v), f) is not f:
                    raise Bad(f"{where}: tag {f.tag} is there twice")
            if f.default == "null" and f.nullable is None:
                raise Bad(f"{where}: null by default but never nullable")
            if is_pointer(message, f) and (
                    f.nullable != f.present or
                    (f.default != "null" and f.tag is None)):
                raise Bad(f"{where}: a nullable struct is nullable wherever "
                          "it is, and null by default if it is not tagged")


def parse_file(path):
    unit = Unit(os.path.basename(path)[:-len(".schema")])
    with open(path, encoding="utf-8") as f:
        try:
            parse_lines(unit, list(enumerate(f.read().split("\n"), 1)))
            for m in unit.messages:
                check(m)
        except Bad as e:
            sys.exit(f"{path}: {e}")
    return unit


# ---- C ----------------------------------------------------------------------
def is_pointer(message, f):
    return (f.base in message.structs and not f.array
            and f.nullable is not None)


def struct_name(message, name):
    return f"{message.name}_{name}" if name else message.name


def declaration(message, f):
    c = SCALARS[f.base][0] if f.base in SCALARS else \
        f"struct {struct_name(message, f.base)}"
    if f.array:
        return [f"{c} *{f.name};", f"int32_t n_{f.name};"]
    return [f"{c} *{f.name};" if is_pointer(message, f) else f"{c} {f.name};"]


def show(r):
    return f"{r[0]}+" if r[1] == LATER else \
        f"{r[0]}" if r[0] == r[1] else f"{r[0]}-{r[1]}"


def remark(message, around, f):
    """Comment of a member: what the type does not say."""
    parts = []
    if f.present[1] < min(around[1], message.versions[1]) \
            or f.present[0] > around[0]:
        parts.append(f"v{show(f.present)}")
    if f.nullable is not None:
        parts.append("nullable" if f.nullable == f.present
                     else f"nullable v{show(f.nullable)}")
    if f.tag is not None:
        parts.append(f"tag {f.tag}")
    if f.default is not None:
        parts.append(f"default {f.default}")
    return f" /* {', '.join(parts)} */" if parts else ""


def depth_first(message):
    """Structs, each after those that it holds by value or by array."""
    out = []

    def visit(s):
        for f in s.fields:
            if f.base in message.structs:
                visit(message.structs[f.base])
        if s not in out:
            out.append(s)

    visit(message.body)
    return out


def write_struct(message, s):
    lines = [f"struct {struct_name(message, s.name)} {{"]
    for f in s.ordered():
        d = declaration(message, f)
        lines.append(f"    {d[0]}{remark(message, s.present, f)}")
        lines += [f"    {x}" for x in d[1:]]
    return lines + ["};"]


def fewest(message, s, version, seen=()):
    """Fewest bytes that the struct takes in a version."""
    compact = version >= message.flexible
    n = 1 if compact else 0
    for f in s.fields:
        if f.tag is not None or not f.present[0] <= version <= f.present[1]:
            continue
        if f.array:
            n += 1 if compact else 4
        elif is_pointer(message, f):
            n += 1
        elif f.base in SCALARS:
            n += SCALARS[f.base][3 if compact and not f.plain else 2]
        else:
            n += fewest(message, message.structs[f.base], version)
    return n


def element_min(message, s):
    last = min(s.present[1], message.versions[1])
    return max(1, min(fewest(message, s, v)
                      for v in range(s.present[0], last + 1)))


def initial(message, f):
    d = f.default
    if d is None or d == "false":
        return "0"
    if d == "null":
        return "-1"
    if d == "true":
        return "1"
    n = int(d)
    return str(n) if n > -2**63 else "INT64_MIN"


def c_range(r):
    return f"{{{r[0]}, {r[1]}}}" if r else "{1, 0}"


def write_table(message, s):
    name = struct_name(message, s.name)
    fields = s.ordered()
    plain = sum(1 for f in fields if f.tag is None)
    lines = []
    if fields:
        lines.append(f"static const struct codec_field {name}_fields[] = {{")
    for f in fields:
        kind = SCALARS[f.base][1] if f.base in SCALARS else "STRUCT"
        parts = [f'"{f.name}"', f"offsetof(struct {name}, {f.name})",
                 f".kind = CODEC_{kind}", f".present = {c_range(f.present)}",
                 f".nullable = {c_range(f.nullable)}",
                 f".tag = {-1 if f.tag is None else f.tag}"]
        if f.array:
            parts.append(f".count_offset = offsetof(struct {name}, "
                         f"n_{f.name})")
            parts.append(".array = true")
        if is_pointer(message, f):
            parts.append(".pointer = true")
        if f.plain:
            parts.append(".plain = true")
        if kind == "STRUCT":
            parts.append(f".type = &{struct_name(message, f.base)}_struct")
        if initial(message, f) != "0":
            parts.append(f".initial = {initial(message, f)}")
        lines.append("    {" + ",\n     ".join(parts) + "},")
    if fields:
        lines.append("};")
    table = f"{name}_fields" if fields else "NULL"
    lines.append(f"static const struct codec_struct {name}_struct = {{")
    lines.append(f"    sizeof(struct {name}), {element_min(message, s)}, "
                 f"{len(fields)}, {plain}, {table}}};")
    return lines


def header_of(unit):
    guard = f"SCHEMA_{unit.name.upper()}_H"
    lines = [f"/* Generated from net/schema/{unit.name}.schema. */",
             f"#ifndef {guard}", f"#define {guard}", "",
             '#include "base/codec.h"', ""]
    for name, number in unit.records.items():
        if name.endswith("_key"):
            lines.append(f"#define {name.upper()}_TYPE {number}")
    if unit.records:
        lines.append("")
    for m in unit.messages:
        for s in depth_first(m):
            if not s.fields:  # C knows no empty struct
                lines += [f"struct {struct_name(m, s.name)} {{",
                          "    char nothing;", "};"]
            else:
                lines += write_struct(m, s)
        lines += [f"CODEC_DECLARE({m.name})", ""]
    return "\n".join(lines + ["#endif", ""])


def source_of(unit):
    lines = [f"/* Generated from net/schema/{unit.name}.schema. */",
             f'#include "schema/{unit.name}.h"', ""]
    for m in unit.messages:
        for s in depth_first(m):
            lines += write_table(m, s)
        lines += [f"const struct codec_message {m.name}_message = {{",
                  f'    "{m.name}", {m.versions[0]}, {m.versions[1]}, '
                  f"{m.flexible}, &{m.name}_struct}};", ""]
    return "\n".join(lines)


def apis_header(units):
    lines = ["/* Generated from net/schema. */", "#ifndef SCHEMA_APIS_H",
             "#define SCHEMA_APIS_H", "", '#include "base/codec.h"', "",
             "enum api_key {"]
    lines += [f"    API_{u.api[1].upper()} = {u.api[0]}," for u in units]
    lines += ["};", f"#define API_KEY_MAX {max(u.api[0] for u in units)}", "",
              "/* Every message of the schema, for tests and tools. */",
              "extern const struct codec_message *const codec_messages[];",
              "extern const int codec_n_messages;", "", "#endif", ""]
    return "\n".join(lines)


def apis_source(apis, units):
    lines = ["/* Generated from net/schema. */", '#include "schema/apis.h"',
             ""]
    lines += [f'#include "schema/{u.name}.h"' for u in units]
    lines += ["", "const struct codec_api codec_apis[] = {"]
    for u in apis:
        offer = u.offer or (-1, -1)
        rq, rs = u.messages
        lines.append(
            f'    {{{u.api[0]}, "{u.api[1]}", {offer[0]}, {offer[1]}, '
            f"{rq.versions[0]}, {rq.versions[1]}, {rq.flexible}, "
            f"{'true' if u.now else 'false'}, &{rq.name}_message, "
            f"&{rs.name}_message}},")
    lines += ["};", f"const int codec_n_apis = {len(apis)};", "",
              "const struct codec_message *const codec_messages[] = {"]
    names = [m.name for u in units for m in u.messages]
    lines += [f"    &{n}_message," for n in names]
    lines += ["};", f"const int codec_n_messages = {len(names)};", ""]
    return "\n".join(lines)


def put(path, text):
    try:
        with open(path, encoding="utf-8") as f:
            if f.read() == text:
                return
    except FileNotFoundError:
        pass
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def main():
    out, paths = sys.argv[1], sorted(sys.argv[2:])
    units = [parse_file(p) for p in paths]
    apis = sorted((u for u in units if u.api), key=lambda u: u.api[0])
    os.makedirs(out, exist_ok=True)
    for u in units:
        put(os.path.join(out, u.name + ".h"), header_of(u))
        put(os.path.join(out, u.name + ".c"), source_of(u))
    put(os.path.join(out, "apis.h"), apis_header(apis))
    put(os.path.join(out, "apis.c"), apis_source(apis, units))


if __name__ == "__main__":
    main()
