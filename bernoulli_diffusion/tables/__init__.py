"""Tables of records with columns: read, described, turned into bits, and written back.

reading.py     files of many forms -> Table
columns.py     what a column is, and how its type is found
rules.py       columns that others determine
description.py columns.yaml, for people
encoding.py    records <-> bits
writing.py     records -> CSV, Parquet, NumPy
frames.py      the same from and to pandas
"""
