rule microstructures:
    output:
        paths.microstructures("{split}") + "/zarr.json",
    log:
        paths.root + "/logs/microstructures/{split}.log",
    benchmark:
        paths.root + "/benchmarks/microstructures/{split}.tsv"
    conda:
        "../../environment.yml"
    params:
        store=paths.microstructures("{split}"),
        options=lambda w: options(
            count=cfg.count(w.split),
            n=cfg.microstructures.n,
            seed=cfg.seed,
            split=w.split,
            samples_per_shard=cfg.jobs.samples_per_shard,
        ),
        version=VERSION,
    shell:
        "lspipe generate {params.store} {params.options} 2>&1 | tee {log}"


rule allocate:
    input:
        paths.microstructures("{split}") + "/zarr.json",
    output:
        paths.fields("{case}", "{split}") + "/zarr.json",
    log:
        paths.root + "/logs/allocate/{case}/{split}.log",
    benchmark:
        paths.root + "/benchmarks/allocate/{case}/{split}.tsv"
    conda:
        "../../environment.yml"
    params:
        stores=[paths.fields("{case}", "{split}"), paths.microstructures("{split}")],
        options=lambda w: options(
            material=[[m.young, m.poisson] for m in cfg.cases[w.case]],
            **cfg.load.model_dump(),
            **cfg.solver.model_dump(),
            samples_per_shard=cfg.jobs.samples_per_shard,
        ),
        version=VERSION,
    shell:
        "lspipe allocate {params.stores} {params.options} 2>&1 | tee {log}"


rule solve:
    input:
        paths.microstructures("{split}") + "/zarr.json",
        paths.fields("{case}", "{split}") + "/zarr.json",
    output:
        paths.receipt("{case}", "{split}", "{job}"),
    log:
        paths.root + "/logs/solve/{case}/{split}/{job}.log",
    benchmark:
        paths.root + "/benchmarks/solve/{case}/{split}/{job}.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    params:
        stores=[paths.fields("{case}", "{split}"), paths.microstructures("{split}")],
        options=lambda w: options(
            first_shard=int(w.job) * cfg.jobs.shards_per_job,
            shards=cfg.jobs.shards_per_job,
        ),
    shell:
        "lspipe solve {params.stores} {params.options} --receipt {output} --workers {threads} 2>&1 | tee {log}"
