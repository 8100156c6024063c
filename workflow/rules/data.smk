rule microstructures:
    output:
        "results/{run}/microstructures/{split}.zarr/zarr.json",
    log:
        "results/{run}/logs/microstructures/{split}.log",
    benchmark:
        "results/{run}/benchmarks/microstructures/{split}.tsv"
    conda:
        "../../environment.yml"
    params:
        options=lambda w: options(
            count=getattr(cfg.microstructures, w.split),
            n=cfg.microstructures.n,
            seed=cfg.seed,
            split=w.split,
            samples_per_shard=cfg.jobs.samples_per_shard,
        ),
        version=DATA_VERSION,
    shell:
        "lspipe generate {output} {params.options} 2>&1 | tee {log}"


rule allocate:
    input:
        "results/{run}/microstructures/{split}.zarr/zarr.json",
    output:
        "results/{run}/fields/{case}/{split}.zarr/zarr.json",
    log:
        "results/{run}/logs/allocate/{case}/{split}.log",
    benchmark:
        "results/{run}/benchmarks/allocate/{case}/{split}.tsv"
    conda:
        "../../environment.yml"
    params:
        options=lambda w: options(
            material=[[m.young, m.poisson] for m in cfg.cases[w.case]],
            **cfg.load.model_dump(),
            **cfg.solver.model_dump(),
            samples_per_shard=cfg.jobs.samples_per_shard,
        ),
        version=DATA_VERSION,
    shell:
        # Receipts of the store that was here before say nothing of this one.
        "rm -rf results/{wildcards.run}/receipts/{wildcards.case}/{wildcards.split}"
        " && lspipe allocate {output} {input} {params.options} 2>&1 | tee {log}"


rule solve:
    input:
        "results/{run}/microstructures/{split}.zarr/zarr.json",
        "results/{run}/fields/{case}/{split}.zarr/zarr.json",
    output:
        "results/{run}/receipts/{case}/{split}/{job}.json",
    log:
        "results/{run}/logs/solve/{case}/{split}/{job}.log",
    benchmark:
        "results/{run}/benchmarks/solve/{case}/{split}/{job}.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    params:
        options=lambda w: options(
            first_shard=int(w.job) * cfg.jobs.shards_per_job,
            shards=cfg.jobs.shards_per_job,
        ),
    shell:
        "lspipe solve {input} {params.options} --receipt {output} --workers {threads} 2>&1 | tee {log}"


# Keeps a change of the jobs' sizes from retraining: who needs the fields waits for this file, not for the receipts.
rule gather:
    input:
        lambda w: receipts(w.case, w.split),
    output:
        "results/{run}/receipts/{case}/{split}/all.jsonl",
    log:
        "results/{run}/logs/gather/{case}/{split}.log",
    benchmark:
        "results/{run}/benchmarks/gather/{case}/{split}.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    shell:
        "for receipt in {input}; do tr -d '\\n' < $receipt; echo; done > {output} 2> {log}"
