#!/usr/bin/env bash
# All that is measured on a GPU, in about ten minutes; prints its tables, and keeps what each part printed in OUT.
#     benchmarks/gpu.sh CHECKPOINT PHOTOS [OUT [PART ...]]
# CHECKPOINT is a slim InceptionV3, PHOTOS a folder with train/ and test/. Each part has a limit of its own, so that one
# that hangs does not cost the others. Needs ckpt-tools with TensorFlow for a GPU; peers that are not installed are left
# out. XLA compiles for a minute and more, and so does Keras, which uses it on a GPU: these parts come last.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
checkpoint=$1 photos=$2 out=${3:-gpu-output}; shift $(($# < 3 ? $# : 3))
wanted=" ${*:-command equal resume steps features trainer xla keras keras_features} "
mkdir -p "$out"
export PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 TF_FORCE_GPU_ALLOW_GROWTH=true # contestants share the GPU
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
nvidia-smi dmon -s u -d 1 -o T >> "$out/dmon.txt" & trap 'kill %1 2> /dev/null' EXIT

part() { # NAME SECONDS SCRIPT ARGUMENT...
  local name=$1 limit=$2 first; shift 2; first=$(date +%T)
  [[ $wanted == *" $name "* ]] || return 0
  echo; echo "=== $name: $*"
  timeout "$limit" python3 "$here/$@" 2> "$out/$name.err" | tee "$out/$name.txt"
  local code=${PIPESTATUS[0]}
  if [ "$code" != 0 ]; then echo "=== $name ended with $code"; tail -c 1500 "$out/$name.err"; fi
  echo "$name $first $(date +%T)" >> "$out/times.txt"
}

step="bench_step.py --together --rounds 1 --steps 30"
part command 150 gpu_checks.py command "$checkpoint" "$photos" "$out"
part equal 100 gpu_checks.py equal "$checkpoint" "$photos" "$out"
part resume 120 gpu_checks.py resume "$checkpoint" "$photos" "$out"
part steps 150 $step --scopes whole,head,upper --peers slim,torch --variants bfloat16,float16
part features 90 bench_features.py "$checkpoint" --images 2048 --rounds 2 --contestants \
  "bare float32,bare bfloat16,bare float16,ours float32,ours bfloat16,ours float16,pipeline"
part trainer 120 bench_trainer.py --rounds 1 --steps 40 --scopes whole --variants float32,bfloat16
part xla 180 $step --scopes whole --peers "" --variants xla,bfloat16+xla
part keras 150 $step --scopes whole --peers keras
part keras_features 120 bench_features.py "$checkpoint" --images 2048 --rounds 2 --contestants "ours bfloat16,keras"
echo; python3 "$here/gpu_checks.py" busy "$out"
