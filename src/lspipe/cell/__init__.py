"""The periodic cell problem: knows nothing of files, Dask, Snakemake or networks."""
