-- wrk's part: one request again and again, every answer looked at.
-- Arguments: the status and a text that each answer must have, the body, then headers as "Name: value".

local status, text, thread
local bytes
wrong = 0 -- global, so that done() can ask the thread for it

function setup(it)
  thread = it
end

function init(arguments)
  status, text = tonumber(arguments[1]), arguments[2]
  wrk.method, wrk.body = "POST", arguments[3]
  for i = 4, #arguments do
    local name, value = arguments[i]:match("^(.-): (.*)$")
    wrk.headers[name] = value
  end
  bytes = wrk.format()
end

function request()
  return bytes
end

function response(code, headers, body)
  if code ~= status or not body:find(text, 1, true) then
    wrong = wrong + 1
  end
end

function done(summary, latency, requests)
  local lost = summary.errors
  io.write(string.format(
    '\nRESULT {"requests": %d, "seconds": %.6f, "p50": %.9f, "p99": %.9f, "wrong": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    thread:get("wrong") + lost.connect + lost.read + lost.write + lost.timeout))
end
