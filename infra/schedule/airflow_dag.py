"""`matchloop retrain` as an Airflow DAG, in place of `matchloop schedule`: copy it to the folder of your DAGs.

The worker needs the command `matchloop` with the extra `train`, the shared home directory and the settings of the
installation (MATCHLOOP_* variables, or MATCHLOOP_CONFIG). A try that was killed goes on where it was.
"""

from datetime import UTC, datetime, timedelta

from airflow import DAG
from airflow.operators.bash import BashOperator

with DAG(
    dag_id="matchloop_retrain",
    description="The next release, with what was learnt online",
    schedule="0 */4 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,  # missed runs count once
    max_active_runs=1,  # MatchLoop refuses a second one as well
    tags=["matchloop"],
) as dag:
    BashOperator(
        task_id="retrain",
        bash_command="matchloop retrain --json",
        append_env=True,
        retries=2,
        retry_delay=timedelta(minutes=5),
    )
