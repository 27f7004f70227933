"""Reading of tables, tuples of Python numbers, while a Triton kernel is compiled."""
# mypy: allow-untyped-defs, allow-incomplete-defs

import triton


@triton.constexpr_function
def entry(table, field, *places):
    """A number of a table, known when the kernel is compiled."""
    value = getattr(table, field)
    for place in places:
        value = value[place]
    return value


@triton.constexpr_function
def size(table, field, *places):
    """How many entries a field of a table has."""
    value = getattr(table, field)
    for place in places:
        value = value[place]
    return len(value)
