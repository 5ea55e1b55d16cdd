# The handbook with everything installed, as a user without rights. JupyterLab prints its address,
# token included:
#   docker build -t mtl-handbook .
#   docker run --rm -p 8888:8888 -v mtl-handbook:/home/student/handbook mtl-handbook
# The volume keeps what you write: chapters, answers and runs.
# A smaller image without CUDA: --build-arg TORCH_INDEX=URL, the CPU index that pytorch.org names.
FROM python:3.12-slim AS machine

RUN apt-get update \
 && apt-get install --yes --no-install-recommends git make \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 student

USER student
RUN mkdir /home/student/handbook
WORKDIR /home/student/handbook
ENV PIP_NO_CACHE_DIR=1

FROM machine
COPY --chown=student:student . .
ARG TORCH_INDEX=
RUN make lessons PYTHON=python TORCH_INDEX="$TORCH_INDEX"

ENV PATH=/home/student/handbook/.venv/bin:$PATH
EXPOSE 8888
CMD ["python", "-m", "jupyterlab", "--ip=0.0.0.0", "--no-browser", \
     "--LabApp.default_url=/lab/tree/lessons/00_start_here.ipynb"]
