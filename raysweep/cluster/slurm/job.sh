# What follows is the same in every job.
#
# Each node runs `ray start`, as one step of the job, and the sweep's driver runs beside it, here on the first node. A
# job has ports and a folder of its own for Ray, so that two jobs can share a node. Nothing outside of the job is
# stopped: its processes end with its step.

# Slurm sends USR1 when the job's time is nearly up, and TERM when somebody stops it by `scancel --batch --signal=TERM`:
# the driver is told, and its trials commit.
driver='' cluster='' stops='' again='' late=''
stop() {
    stops=yes
    [ -z "$driver" ] || kill -TERM "$driver" 2> /dev/null
}
stop_for_good() {
    again=''
    [ -z "$late" ] || kill "$late" 2> /dev/null
    stop
}
time_is_nearly_up() {
    echo "raysweep: the job's time is nearly up: trials commit, and the job goes back into the queue"
    again=yes
    stop
    # Longer than that a driver is not waited for: what was trained since its last commits is trained again.
    (sleep $((signal_seconds * 5 / 6)) && requeue) &
    late=$!
}
trap stop_for_good TERM
trap time_is_nearly_up USR1

committed() { # what the trials have committed, where it can be seen from here
    [ -z "$run_folder" ] || find "$run_folder/trials" -name record.json -printf '%p %s %T@\n' 2> /dev/null | sort | cksum
}
requeue() {
    if [ -n "$run_folder" ] && [ "$(committed)" = "$before" ]; then
        echo "raysweep: no trial has committed since the job began: it would come no further in the same time again." \
            "Give it more (--time), and an epoch of a loop of your own less than signal_seconds" >&2
        return 1
    fi
    scontrol requeue "$SLURM_JOB_ID" && sleep 60 # Slurm ends this script
}
before=$(committed)

setup
set +eu

if [ -n "$run_folder" ] && [ ! -d "$(dirname "$run_folder")" ]; then
    echo "raysweep: $(hostname) does not see $(dirname "$run_folder"), where the run folder is to lie: name a place that the" \
        "login node and all nodes see (--storage)" >&2
    exit 2
fi
answers() { (exec 3<> "/dev/tcp/$1/$2") 2> /dev/null; }
address_here() { # Ray's own way takes loopback where there is no default route
    local ip
    ip=$(getent ahostsv4 "$(hostname)" | awk '$1 !~ /^127[.]/ {print $1; exit}')
    echo "${ip:-$(hostname -I | awk '{print $1}')}"
}
here=$(hostname) ip=$(address_here)
port=$((20000 + SLURM_JOB_ID % 1200 * 10)) # below those that Linux gives to connections
while answers "$ip" "$port"; do port=$((port + 10)); done
folder=/tmp/raysweep-$SLURM_JOB_ID
rm -f "$folder.taken"
memory=$((${SLURM_MEM_PER_NODE:-${SLURM_MEM_PER_CPU:-0} * SLURM_CPUS_ON_NODE})) # of a node, in MiB; 0: all it has
log=slurm-$SLURM_JOB_NAME-$SLURM_JOB_ID.ray.out
export RAY_USAGE_STATS_ENABLED=0 RAY_USAGE_STATS_REPORT_URL=http://127.0.0.1:9 # nothing leaves the site
export RAY_AUTH_MODE=token PYTHONUNBUFFERED=1
# Other users of the nodes are not to use this Ray. The file's token does for all nodes, though they may not see it.
token=~/.ray/auth_token
if [ ! -s "$token" ]; then
    mkdir -p ~/.ray
    (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$token.$SLURM_JOB_ID")
    ln "$token.$SLURM_JOB_ID" "$token" 2> /dev/null # fails if another job was first
    rm -f "$token.$SLURM_JOB_ID"
fi
RAY_AUTH_TOKEN=$(cat "$token")
export RAY_AUTH_TOKEN
if [ -z "$RAY_AUTH_TOKEN" ]; then
    echo "raysweep: Ray's token cannot be read from $token, or be written there" >&2
    exit 2
fi

on_a_node() {
    local ray
    end_step() { [ "$SLURM_NODEID" != 0 ] || scancel "$SLURM_JOB_ID.$SLURM_STEP_ID"; } # the others would wait for ever
    # Others could write into the folder that Ray makes.
    if ! { mkdir -m 700 "$folder" 2> /dev/null || [ -O "$folder" ]; }; then
        echo "raysweep: $folder on $(hostname) is somebody else's" >&2
        end_step
        exit 2
    fi
    local spilled=$folder
    [ ! -w "$TMPDIR" ] || spilled=$TMPDIR/raysweep-$SLURM_JOB_ID
    end_ray() {
        kill -TERM "$ray" 2> /dev/null
        wait "$ray"
        sleep 1
        rm -rf "$spilled" "$folder"
        exit
    }
    trap end_ray USR2
    trap '[ "$SLURM_NODEID" != 0 ] || touch "$folder.taken"; end_ray' TERM # Slurm cancels or preempts the job
    ulimit -n "$(ulimit -Hn)"
    local start=("${python[@]}" -m ray.scripts.scripts start --block --temp-dir "$folder/ray"
        --object-spilling-directory "$spilled" --node-ip-address "$(address_here)"
        --num-cpus "$SLURM_CPUS_ON_NODE" --num-gpus "$gpus"
        --min-worker-port 0 --max-worker-port 0 --dashboard-agent-listen-port $((port + 3)))
    if [ "$memory" != 0 ]; then # Ray sees the machine's, and takes 3/10 of that
        local shared=$(($(df --output=avail -k /dev/shm | tail -n 1) * 1024 * 9 / 10))
        local store=$((memory * 1024 * 1024 * 3 / 10))
        start+=(--object-store-memory $((store < shared ? store : shared)))
    fi
    if [ "$SLURM_NODEID" = 0 ]; then
        start+=(--head --port "$port" --dashboard-port $((port + 1)) --ray-client-server-port $((port + 2)))
    else
        until answers "$ip" "$port"; do sleep 1; done
        start+=(--address "$ip:$port")
    fi
    "${start[@]}" &
    ray=$!
    wait "$ray"
    # Ray has ended by itself. If it is because the first node is gone, so is the script, and Slurm, which keeps a job for
    # its other nodes, does not requeue it by itself.
    end_step
    if [ "$SLURM_NODEID" != 0 ] && ! answers "$ip" "$port" &&
        scontrol --oneliner show job "$SLURM_JOB_ID" | grep -q " Restarts=${SLURM_RESTART_COUNT:-0} "; then
        scontrol requeue "$SLURM_JOB_ID" # unless another node has
    fi
}

end() { # with this exit code, unless the job goes on or Ray has failed
    local code=$1 n
    [ -z "$late" ] || kill "$late" 2> /dev/null
    if [ -O "$folder.taken" ]; then
        rm -f "$folder.taken"
        echo "raysweep: Slurm takes the nodes away; if it requeues the job, that goes on from the last commits" >&2
        sleep 3600 # Slurm ends this script
    fi
    if kill -0 "$cluster" 2> /dev/null; then
        kill -USR2 "$cluster"          # which srun passes on; TERM would have it kill them
        for ((n = 0; n < 20; n++)); do # a lost node does not answer; Slurm ends it with the job
            kill -0 "$cluster" 2> /dev/null || break
            sleep 1
        done
    elif [ -z "$stops" ] && [ "$code" != 0 ]; then
        echo "raysweep: Ray has ended on $here: $PWD/$log says why; what is committed is safe" >&2
        code=70
    fi
    if [ -n "$stops" ] && ((code > 3)); then
        code=130 # also where it could not yet take the signal, or no longer
        [ -z "$again" ] || requeue
    fi
    exit "$code"
}

there=$(declare -f answers address_here on_a_node && declare -p python gpus ip port folder memory)
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --export=ALL --cpu-bind=none --mem=0 \
    --no-kill --kill-on-bad-exit=0 --wait=0 --output="$log" --open-mode=append bash -c "$there; on_a_node" 2>> "$log" &
cluster=$!
until answers "$ip" "$port"; do
    [ -z "$stops" ] || end 130
    kill -0 "$cluster" 2> /dev/null || end 70
    sleep 1
done
echo "raysweep: Ray's dashboard: ssh -N -J LOGIN_NODE -L 8265:127.0.0.1:$((port + 1)) $here, then http://127.0.0.1:8265;" \
    "its token is in ~/.ray/auth_token"

env -u RAY_AUTH_TOKEN RAY_AUTH_TOKEN_PATH="$token" \
    "${python[@]}" -m raysweep "${sweep[@]}" --address "$ip:$port" --wait-for-nodes "$nodes" &
driver=$!
[ -z "$stops" ] || stop
while kill -0 "$driver" 2> /dev/null; do wait "$driver"; done # a signal ends `wait` before the driver has ended
wait "$driver"
end $?
