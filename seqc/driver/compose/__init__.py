"""Kernels of recurrences -> the functions of one part of a file: a file for each walk of a plan (`seqc.ir.plan`)."""
