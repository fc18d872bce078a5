"""Tables of records with columns: read, described, turned into bits, and written back.

table.py       a table in memory
reading.py     files -> Table: text.py separated values, forms.py other forms, frames.py pandas
columns.py     what a column is; finding.py finds its type
rules.py       columns that others determine
description.py columns.yaml, for people
encoding.py    records <-> bits
writing.py     records -> CSV, Parquet, NumPy
preparing.py   a table -> a run folder
"""
