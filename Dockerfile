# Needs no BuildKit: hosts build with kaniko and others, too. What may be copied is listed in .dockerignore.
FROM python:3.13-slim AS build
ENV UV_PROJECT_ENVIRONMENT=/venv UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_NO_CACHE=1
RUN ["pip", "install", "--no-cache-dir", "uv==0.13.9"]
WORKDIR /app
# The packages first: their layer is built again only when uv.lock changes.
COPY pyproject.toml uv.lock ./
RUN ["uv", "sync", "--locked", "--no-default-groups", "--no-install-project"]
COPY . .

FROM python:3.13-slim AS app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ENVIRONMENT=production
# A volume that Docker mounts here is given this owner.
RUN ["install", "--directory", "--owner=10001", "--group=10001", "/data"]
COPY --from=build /venv /venv
COPY --from=build /app /app
WORKDIR /app
# Where the image runs its disk is read-only. Python's own modules come uncompiled, too.
RUN ["python", "oppman.py", "compileall"]
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["python", "-c", "\
import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ.get(\"PORT\") or 8000}/healthz', timeout=4)"]
CMD ["python", "oppman.py", "runserver"]

# Elsewhere (Fly.io) a volume belongs to root: this one takes it as root, and then gives root's rights away.
FROM app AS volume
# hadolint ignore=DL3002
USER 0
ENTRYPOINT ["sh", "-c", "chown 10001:10001 /data && exec setpriv --reuid=10001 --regid=10001 --clear-groups -- \"$@\"", "sh"]
CMD ["python", "oppman.py", "runserver"]

# The last one is what is built where nobody says which.
FROM app
