"""The periodic cell problem. This package does not depend on stores, Dask, Snakemake or networks."""
