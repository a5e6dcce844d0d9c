"""The passes: each file takes a graph and gives a graph; the pipeline that orders them comes to live here."""
