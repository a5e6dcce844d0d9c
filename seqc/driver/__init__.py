"""The way of a spec through the compiler: the pipeline run, parts joined, files described and explained."""
