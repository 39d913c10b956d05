FROM node:22-bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates curl git openssh-client python3 ripgrep \
 && rm -rf /var/lib/apt/lists/*
RUN npm install --global --no-fund --no-audit @anthropic-ai/claude-code@2.1.330
