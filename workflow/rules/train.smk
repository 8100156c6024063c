rule train:
    input:
        # The stores of the fields below state which fields these are. The lists of solved shards are `ancient`, so that
        # a shard that is solved again does not start a training.
        lambda w: ancient(
            plan.solved_lists(
                cfg.problems_of(network(w)), *cfg.learned_splits(network(w))
            )
        ),
        train=lambda w: plan.training_stores(network(w))[0],
        valid=lambda w: plan.training_stores(network(w))[1],
        source=lambda w: sources.get(network(w).name, []),
        start=lambda w: starts.get(network(w).name) or plan.start(w.predictor),
    output:
        model="results/{run}/models/{predictor}/model.json",
        weights="results/{run}/models/{predictor}/model.safetensors",
        metrics="results/{run}/models/{predictor}/metrics.csv",
    log:
        "results/{run}/logs/train/{predictor}.log",
    benchmark:
        "results/{run}/benchmarks/train/{predictor}.tsv"
    wildcard_constraints:
        predictor=r".+/seed\d+",
    conda:
        "../../environment.yml"
    threads: plan.training_threads(workflow.resource_settings.cores)
    resources:
        # Minutes that the job may take; 0 is no limit. A profile or --set-resources train:runtime=240 sets it.
        runtime=0,
        # The memory is the same at each attempt: a training whose set no longer fits, or fits now, would begin anew.
        mem_mb=lambda w: math.ceil(plan.training_memory(network(w))),
        # Number of GPUs on a node. Each GPU has its own process. Use --set-resources train:gpu=0 on a cluster without GPUs.
        gpu=1,
    params:
        sets=lambda w, input: words(
            train=list(zip(input.train[::2], input.train[1::2])),
            valid=list(zip(input.valid[::2], input.valid[1::2])),
            step=[
                cfg.kept[name][1]
                for name in cfg.problems_of(network(w))
                if name in cfg.kept
            ],
        ),
        options=lambda w: words(
            architecture=network(w).architecture,
            predict=network(w).predict,
            seed=plan.predictors[w.predictor].seed,
            **cfg.training_of(network(w)),
        ),
        start=lambda w, input: words(
            start=input.start[:1] or [network(w).start] * bool(network(w).start)
        ),
        # Snakemake trains again when this changes. It does not compare `start`, which depends on the input.
        origin=lambda w: network(w).start,
        version=MODEL_VERSION,
    shell:
        "$(test {resources.gpu:q} -gt 1 && echo torchrun --standalone --nproc-per-node {resources.gpu:q} -m) "
        "lspipe train {params.sets:q} {params.options:q} {params.start:q} --threads {threads:q} --minutes {resources.runtime:q}"
        " -- {output.model:q} 2>&1 | tee -i {log:q}"


rule import_published:
    input:
        lambda w: published[network(w).name],
    output:
        model="results/{run}/models/{predictor}/model.json",
        weights="results/{run}/models/{predictor}/model.safetensors",
    log:
        "results/{run}/logs/import_published/{predictor}.log",
    benchmark:
        "results/{run}/benchmarks/import_published/{predictor}.tsv"
    wildcard_constraints:
        predictor=".+/imported",
    conda:
        "../../environment.yml"
    params:
        options=lambda w: words(**plan.published(network(w))),
        version=MODEL_VERSION,
    shell:
        "lspipe import-published {params.options:q} -- {input:q} {output.model:q} 2>&1 | tee {log:q}"
