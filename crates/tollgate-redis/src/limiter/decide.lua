-- Decides about one request, and counts it in all of its windows or in none.
--
-- KEYS: the record of each charge. It is a text with the counters of one subject under one policy, `id resets limit numbers...`, separated
-- by semicolons. ARGV: what `call.rs` writes. The reply: 1 or 0, how many units are lent, the instant, and the numbers of each counter
-- before the request.
--
-- The arithmetic is that of `tollgate_core::limit`, where it is explained.

-- Numbers of Lua are exact up to 2^53. Counts end there. Nanoseconds are pairs: seconds, and nanoseconds below 10^9.
local MOST = 9007199254740992
local SECOND = 1000000000
local LAST = {18446744073, 709551615}
local MINUTE = 60
local LATE = {MINUTE, 0}

local position = 0
local function text()
  position = position + 1
  return ARGV[position]
end
local function number()
  return tonumber(text())
end
local function pair()
  return {number(), number()}
end

local function less(one, other)
  return one[1] < other[1] or (one[1] == other[1] and one[2] < other[2])
end
local function later(one, other)
  if less(one, other) then return other end
  return one
end
local function sum(one, other)
  local seconds, nanos = one[1] + other[1], one[2] + other[2]
  if nanos >= SECOND then seconds, nanos = seconds + 1, nanos - SECOND end
  local total = {seconds, nanos}
  if less(LAST, total) then return LAST end
  return total
end
local function difference(one, other)
  if less(one, other) then return {0, 0} end
  local seconds, nanos = one[1] - other[1], one[2] - other[2]
  if nanos < 0 then seconds, nanos = seconds - 1, nanos + SECOND end
  return {seconds, nanos}
end

-- Products do not fit into pairs: lists of four or eight digits of base 10^6, the lowest first.
local function digits(of)
  local seconds, nanos = of[1], of[2]
  local high = math.floor(nanos / 1000000)
  return {
    nanos % 1000000,
    high + seconds % 1000 * 1000,
    math.floor(seconds / 1000) % 1000000,
    math.floor(seconds / 1000000000),
  }
end
local function product(one, other)
  local a, b, result = digits(one), digits(other), {0, 0, 0, 0, 0, 0, 0, 0}
  for i = 1, 4 do
    local carry = 0
    for j = 1, 4 do
      local value = result[i + j - 1] + a[i] * b[j] + carry
      carry = math.floor(value / 1000000)
      result[i + j - 1] = value - carry * 1000000
    end
    result[i + 4] = carry
  end
  return result
end
local function less_product(one, other)
  for i = 8, 1, -1 do
    if one[i] ~= other[i] then return one[i] < other[i] end
  end
  return false
end
-- A count as a pair, so that it can be multiplied.
local function units(count)
  return {math.floor(count / SECOND), count % SECOND}
end

-- The smallest number of nanoseconds that is at least `missing * interval / before`.
local function converted(missing, interval, before)
  local target, most = product(missing, interval), {0, 0}
  for step = 34, 0, -1 do
    local more = {most[1] + 2 ^ step, 0}
    if less_product(product(more, before), target) then most = more end
  end
  for step = 29, 0, -1 do
    local more = {most[1], most[2] + 2 ^ step}
    if more[2] < SECOND and less_product(product(more, before), target) then most = more end
  end
  return sum(most, {0, 1})
end

local now
if text() == 'own' then
  local time = redis.call('TIME')
  now = {tonumber(time[1]), tonumber(time[2]) * 1000}
else
  now = pair()
end
local second = now[1]

-- A window of a fixed length, or a month between the given boundaries: where the present one starts and ends, the end of the latest one
-- that a late request joins, and the end and the length of any of them.
local function read_window()
  local count = number()
  if count == 1 then
    local length = number()
    local since_monday = 0
    if length % 604800 == 0 then since_monday = length - 345600 end
    local ends = second - (second % length + since_monday) % length + length
    return {
      starts = ends - length,
      ends = ends,
      latest = ends + math.max(math.floor(MINUTE / length), 1) * length,
      next_end = function(of) return of + length end,
      length = function() return length end,
    }
  end
  local bounds = {}
  for i = 1, count do bounds[i] = number() end
  for i = 2, count - 2 do
    if second >= bounds[i - 1] and second < bounds[i] then
      local starts, ends, latest, after = bounds[i - 1], bounds[i], bounds[i + 1], bounds[i + 2]
      return {
        starts = starts,
        ends = ends,
        latest = latest,
        next_end = function(of) if of == ends then return latest else return after end end,
        length = function(of) if of == ends then return ends - starts else return latest - ends end end,
      }
    end
  end
  return nil
end

local function counts_in(window, ends)
  return ends >= window.ends and ends <= window.latest
end

-- For each algorithm: the counter now; whether the request fits; the counter with the request; the second of its reset.
local algorithms = {
  fixed = {
    read = function(limit)
      limit.window = read_window()
    end,
    now = function(counter, limit)
      local window = limit.window
      if counter and counts_in(window, counter[1]) then return counter end
      return {window.ends, 0}
    end,
    fits = function(counter, limit)
      return counter[2] + limit.required <= limit.most
    end,
    with = function(counter, limit)
      return {counter[1], math.min(counter[2] + limit.cost, MOST)}
    end,
    room = function(counter, limit)
      return limit.most - counter[2] - limit.cost
    end,
    resets = function(counter)
      return counter[1]
    end,
    without = function(counter)
      local ends, _, returned = number(), number(), number()
      if counter and counter[1] == ends then counter[2] = math.max(counter[2] - returned, 0) end
    end,
  },
  sliding = {
    read = function(limit)
      limit.window = read_window()
    end,
    now = function(counter, limit)
      local window = limit.window
      if counter and counts_in(window, counter[1]) then return counter end
      local before = 0
      if counter and counter[1] == window.starts then before = counter[2] end
      return {window.ends, 0, before}
    end,
    fits = function(counter, limit)
      local free = limit.most - limit.required - counter[2]
      if free < 0 then return false end
      local length = {limit.window.length(counter[1]), 0}
      local left = difference({counter[1], 0}, now)
      if less(length, left) then left = length end
      return not less_product(product(units(free), length), product(units(counter[3]), left))
    end,
    with = function(counter, limit)
      return {counter[1], math.min(counter[2] + limit.cost, MOST), counter[3]}
    end,
    -- Not exact, but never too much: a lease is a small part of it.
    room = function(counter, limit)
      local left = math.min(math.max(counter[1] - second, 0) / limit.window.length(counter[1]), 1)
      return limit.most - counter[2] - limit.cost - math.ceil(counter[3] * left) - 1
    end,
    resets = function(counter, limit)
      return limit.window.next_end(counter[1])
    end,
    without = function(counter)
      local ends, next_ends, returned = number(), number(), number()
      if counter and counter[1] == ends then counter[2] = math.max(counter[2] - returned, 0) end
      if counter and counter[1] == next_ends then counter[3] = math.max(counter[3] - returned, 0) end
    end,
  },
  bucket = {
    read = function(limit)
      limit.interval, limit.is_possible, limit.spare, limit.spend = pair(), number() == 1, pair(), pair()
    end,
    now = function(counter, limit)
      local interval = limit.interval
      local fresh = {now[1], now[2], now[1], now[2], interval[1], interval[2]}
      if not counter then return fresh end
      local full, as_of, before = {counter[1], counter[2]}, {counter[3], counter[4]}, {counter[5], counter[6]}
      if not less(now, full) or less(sum(now, LATE), as_of) then return fresh end
      if before[1] ~= interval[1] or before[2] ~= interval[2] then
        full = later(sum(as_of, converted(difference(full, as_of), interval, before)), now)
      end
      as_of = later(as_of, now)
      return {full[1], full[2], as_of[1], as_of[2], interval[1], interval[2]}
    end,
    fits = function(counter, limit)
      return limit.is_possible and not less(limit.spare, difference({counter[1], counter[2]}, now))
    end,
    with = function(counter, limit)
      local full = sum({counter[1], counter[2]}, limit.spend)
      return {full[1], full[2], counter[3], counter[4], counter[5], counter[6]}
    end,
    -- Tokens that are spent later than they are taken would make a larger burst, so none are lent.
    room = function()
      return 0
    end,
    resets = function(counter)
      if counter[2] > 0 then return counter[1] + 1 end
      return counter[1]
    end,
    without = function(counter)
      local returned = pair()
      if counter then
        local full = difference({counter[1], counter[2]}, returned)
        counter[1], counter[2] = full[1], full[2]
      end
    end,
  },
}

-- A record: its counters by their identifiers, each with its reset and its limit, which only people read.
local function read_record(key)
  local record = {}
  for entry in string.gmatch(redis.call('GET', key) or '', '[^;]+') do
    local fields = {}
    for field in string.gmatch(entry, '%S+') do fields[#fields + 1] = field end
    local counter = {}
    for i = 4, #fields do counter[i - 3] = tonumber(fields[i]) end
    record[fields[1]] = {resets = tonumber(fields[2]), limit = fields[3], counter = counter}
  end
  return record
end

local function write_record(key, record)
  local entries, last = {}, second
  for id, entry in pairs(record) do
    if entry.resets + MINUTE > second then
      local fields = {id, string.format('%.0f', entry.resets), entry.limit}
      for _, value in ipairs(entry.counter) do fields[#fields + 1] = string.format('%.0f', value) end
      entries[#entries + 1] = table.concat(fields, ' ')
      last = math.max(last, entry.resets)
    end
  end
  if #entries == 0 then return redis.call('DEL', key) end
  redis.call('SET', key, table.concat(entries, ';'), 'EX', string.format('%.0f', last - second + MINUTE))
end

-- A lease is a small part of what remains, so that many processes can have one and little is left over when the window ends.
local SHARE = 8

local wanted = number()
local records, changed, checks, is_allowed = {}, {}, {}, true
local reply = {0, 0, now[1], now[2]}
for _, key in ipairs(KEYS) do
  local record = records[key] or read_record(key)
  records[key] = record
  for _ = 1, number() do
    local id, algorithm = text(), algorithms[text()]
    algorithm.without(record[id] and record[id].counter)
    changed[key] = true
  end
  local required, cost = number(), number()
  for _ = 1, number() do
    local id, name, most = text(), text(), text()
    local algorithm = algorithms[name]
    local limit = {required = required, cost = cost, most = tonumber(most)}
    algorithm.read(limit)
    if name ~= 'bucket' and not limit.window then
      return redis.error_reply('CLOCK the clocks of this server and of its client differ by more than a month')
    end
    local counter = algorithm.now(record[id] and record[id].counter, limit)
    for _, value in ipairs(counter) do reply[#reply + 1] = value end
    is_allowed = is_allowed and (required == 0 or algorithm.fits(counter, limit))
    wanted = math.min(wanted, math.floor(algorithm.room(counter, limit) / SHARE))
    checks[#checks + 1] = {key = key, id = id, limit = limit, most = most, algorithm = algorithm, counter = counter}
  end
end

if is_allowed then
  local lent = math.max(wanted, 0)
  reply[1], reply[2] = 1, lent
  for _, check in ipairs(checks) do
    if check.limit.cost > 0 then
      check.limit.cost = check.limit.cost + lent
      local counter = check.algorithm.with(check.counter, check.limit)
      local resets = check.algorithm.resets(counter, check.limit)
      records[check.key][check.id] = {resets = resets, limit = check.most, counter = counter}
      changed[check.key] = true
    end
  end
end
for key in pairs(changed) do write_record(key, records[key]) end
return reply
