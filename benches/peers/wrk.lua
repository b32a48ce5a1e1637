-- Prints wrk's own sums exactly.
--
-- Without arguments only `done` does anything, and only after the load: with `request` or `response` wrk would call into
-- Lua for every answer and slow itself down. With them each request is for another path below that of the URL:
--   spread COUNT SEED   one of COUNT numbers, at random
--   fresh PREFIX        PREFIX and a number that goes up: a path that nobody has asked for
init = function(args)
  local mode, argument, seed = args[1], args[2], args[3]
  if not mode then return end
  local head, tail = wrk.format("GET", wrk.path .. "/@"):match("^(.-)@(.*)$")
  if mode == "spread" then
    local count, random = tonumber(argument), math.random
    math.randomseed(tonumber(seed))
    request = function() return head .. random(0, count - 1) .. tail end
  else
    local number = 0
    head = head .. argument
    request = function()
      number = number + 1
      return head .. number .. tail
    end
  end
end

done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\nSUMMARY {"requests":%d,"bytes":%d,"microseconds":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,"p50":%d,"p99":%d}\n',
    summary.requests, summary.bytes, summary.duration, e.connect, e.read, e.write, e.status, e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
