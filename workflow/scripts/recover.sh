#!/usr/bin/env bash
# Clean up after Snakemake or its login node has died: cancel the jobs that it left in SLURM, wait until the last has
# ended, and unlock the folder. Then start the run again. It keeps what the jobs have finished and saved.
#
#     workflow/scripts/recover.sh        in the folder where Snakemake was started
#
# A job that goes on would write the same files as the jobs of the new run. Your other jobs are not touched.
set -euo pipefail
folder=$(pwd -P)

# Look for the Snakemake that controls the run. A job on this machine has a Snakemake of its own, with --mode.
for process in $(pgrep -u "$(id -u)" -f '(-m |/)snakemake( |$)'); do
    if [[ $(readlink "/proc/$process/exe") == */python* && $(readlink "/proc/$process/cwd") == "$folder" ]] &&
        ! grep -qz -e '^--mode$' "/proc/$process/cmdline"; then
        echo "Snakemake still works in $folder, as process $process: end it first (kill -INT $process)" >&2
        exit 1
    fi
done

# List the jobs of this folder: Snakemake gives each a comment that begins with rule_ or group_.
strays() {
    squeue --noheader --user "$(id -un)" --format '%A|%k|%Z' |
        while IFS='|' read -r job comment where; do
            if [[ $comment =~ ^(rule|group)_ && $where == "$folder" ]]; then echo "$job"; fi
        done
}
left=$(strays)
while [ -n "$left" ]; do
    echo "Cancelling, and waiting for:" $left
    scancel --quiet $left
    sleep 1
    left=$(strays)
done
snakemake --unlock "$@"
