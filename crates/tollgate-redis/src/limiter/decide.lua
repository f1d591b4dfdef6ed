-- Decides about one request, and counts it in all of its windows or in none.
--
-- KEYS: the record of each charge. It is a text with the counters of one subject under one policy, `id resets limit numbers...`, separated
-- by semicolons. ARGV: what `call.rs` writes. The reply: 1 or 0, how many units are lent, the instant, and the numbers of each counter
-- before the request.
--
-- The arithmetic is that of `tollgate_core::limit`, where it is explained. Most requests have only fixed windows of a fixed length, and most
-- of the time goes into making functions and tables: what only the others need is made in `months` and `others`, when it is needed.

-- Numbers of Lua are exact up to 2^53. Counts end there.
local MOST = 9007199254740992
local MINUTE = 60
-- A lease is a small part of what remains, so that many processes can have one and little is left over when the window ends.
local SHARE = 8

local position, floor, redis_call = 0, math.floor, redis.call
local function text()
  position = position + 1
  return ARGV[position]
end
local function number()
  position = position + 1
  return tonumber(ARGV[position])
end

local second, nanos
if text() == 'own' then
  local time = redis_call('TIME')
  second, nanos = tonumber(time[1]), time[2] * 1000
else
  second, nanos = number(), number()
end

-- The window of a month between the given starts: see `read_window`.
local function months(count)
  local starts = {}
  for i = 1, count do starts[i] = number() end
  for i = 2, count - 2 do
    if second >= starts[i - 1] and second < starts[i] then return starts[i - 1], starts[i], starts[i + 1], starts[i + 2] end
  end
  error('the clocks of this server and of its client differ by more than a month')
end

-- Where the present window starts and ends, the end of the latest one that a late request joins; of months, the end of the one after it,
-- otherwise the length.
local function read_window()
  local count = number()
  if count > 1 then return months(count) end
  local length = number()
  local since_monday = 0
  if length % 604800 == 0 then since_monday = length - 345600 end
  local ends = second - (second % length + since_monday) % length + length
  local latest = ends + length
  if length < MINUTE then latest = ends + floor(MINUTE / length) * length end
  return ends - length, ends, latest, nil, length
end

-- An algorithm has two functions. `check` reads the arguments of a limit, and returns the counter now, whether the request fits, how many
-- units would remain, the second of the reset if the request is counted, and the counter then, if it does not only add to its second
-- number. `give_back` reads what to take from a counter.
local fixed = {}
function fixed.check(counter, most, required, cost)
  local _, ends, latest = read_window()
  if not counter or counter[1] < ends or counter[1] > latest then counter = {ends, 0} end
  local used = counter[2]
  return counter, used + required <= most, most - used - cost, counter[1]
end
function fixed.give_back(counter)
  local ends, _, units = number(), number(), number()
  if counter and counter[1] == ends then counter[2] = math.max(counter[2] - units, 0) end
end

local function others()
  -- Nanoseconds are pairs, because they exceed 2^53: seconds, and nanoseconds below 10^9.
  local SECOND = 1000000000
  local LAST = {18446744073, 709551615}
  local now = {second, nanos}
  local function pair() return {number(), number()} end
  local function less(one, other) return one[1] < other[1] or (one[1] == other[1] and one[2] < other[2]) end
  local function later(one, other)
    if less(one, other) then return other end
    return one
  end
  local function sum(one, other)
    local seconds, rest = one[1] + other[1], one[2] + other[2]
    if rest >= SECOND then seconds, rest = seconds + 1, rest - SECOND end
    local total = {seconds, rest}
    if less(LAST, total) then return LAST end
    return total
  end
  local function difference(one, other)
    if less(one, other) then return {0, 0} end
    local seconds, rest = one[1] - other[1], one[2] - other[2]
    if rest < 0 then seconds, rest = seconds - 1, rest + SECOND end
    return {seconds, rest}
  end

  -- Products do not fit into pairs: lists of four or eight digits of base 10^6, the lowest first.
  local function digits(of)
    return {
      of[2] % 1000000,
      floor(of[2] / 1000000) + of[1] % 1000 * 1000,
      floor(of[1] / 1000) % 1000000,
      floor(of[1] / 1000000000),
    }
  end
  local function product(one, other)
    local a, b, result = digits(one), digits(other), {0, 0, 0, 0, 0, 0, 0, 0}
    for i = 1, 4 do
      local carry = 0
      for j = 1, 4 do
        local value = result[i + j - 1] + a[i] * b[j] + carry
        carry = floor(value / 1000000)
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
  local function units(count) return {floor(count / SECOND), count % SECOND} end

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

  local sliding = {}
  function sliding.check(counter, most, required, cost)
    local starts, ends, latest, after, length = read_window()
    if not counter or counter[1] < ends or counter[1] > latest then
      local before = 0
      if counter and counter[1] == starts then before = counter[2] end
      counter = {ends, 0, before}
    end
    local next_end = after
    if length then
      next_end = counter[1] + length
    elseif counter[1] == ends then
      next_end, length = latest, ends - starts
    else
      length = latest - ends
    end
    local free = most - required - counter[2]
    local left, whole = difference({counter[1], 0}, now), {length, 0}
    if less(whole, left) then left = whole end
    local fits = free >= 0 and not less_product(product(units(free), whole), product(units(counter[3]), left))
    -- Not exact, but never too much: a lease is a small part of it.
    local room = most - counter[2] - cost - math.ceil(counter[3] * (left[1] + 1) / length)
    return counter, fits, room, next_end
  end
  function sliding.give_back(counter)
    local ends, next_end, returned = number(), number(), number()
    if counter and counter[1] == ends then counter[2] = math.max(counter[2] - returned, 0) end
    if counter and counter[1] == next_end then counter[3] = math.max(counter[3] - returned, 0) end
  end

  local bucket = {}
  function bucket.check(counter)
    local interval, is_possible, spare, spend = pair(), number() == 1, pair(), pair()
    local full, as_of = now, now
    if counter then
      local was_full, before = {counter[1], counter[2]}, {counter[5], counter[6]}
      local was_as_of = {counter[3], counter[4]}
      if less(now, was_full) and not less(sum(now, {MINUTE, 0}), was_as_of) then
        if before[1] ~= interval[1] or before[2] ~= interval[2] then
          was_full = sum(was_as_of, converted(difference(was_full, was_as_of), interval, before))
        end
        full, as_of = later(was_full, now), later(was_as_of, now)
      end
    end
    local fits = is_possible and not less(spare, difference(full, now))
    local spent = sum(full, spend)
    local resets = spent[1]
    if spent[2] > 0 then resets = resets + 1 end
    -- No room: tokens that are spent later than they are taken would make a larger burst, so none are lent.
    return {full[1], full[2], as_of[1], as_of[2], interval[1], interval[2]},
      fits, 0, resets,
      {spent[1], spent[2], as_of[1], as_of[2], interval[1], interval[2]}
  end
  function bucket.give_back(counter)
    local returned = pair()
    if counter then
      local full = difference({counter[1], counter[2]}, returned)
      counter[1], counter[2] = full[1], full[2]
    end
  end
  return {sliding = sliding, bucket = bucket}
end

local made
local function algorithm_of(name)
  if name == 'fixed' then return fixed end
  made = made or others()
  return made[name]
end

-- A record: its counters by their identifiers, each with its reset and its limit, which only people read. The numbers of a counter are read
-- when they are needed.
local function read_record(key)
  local record, stored = {}, redis_call('GET', key)
  if stored then
    for id, resets, limit, numbers in string.gmatch(stored, '([^;%s]+) (%S+) (%S+) ([^;]*)') do
      record[id] = {resets = tonumber(resets), limit = limit, numbers = numbers}
    end
  end
  return record
end
local function counter_of(entry)
  if not entry then return nil end
  if not entry.counter then
    local counter = {}
    for value in string.gmatch(entry.numbers, '%S+') do counter[#counter + 1] = tonumber(value) end
    entry.counter = counter
  end
  return entry.counter
end

local function write_record(key, record)
  local stored, last = nil, second
  for id, entry in pairs(record) do
    local resets = entry.resets
    if resets + MINUTE > second then
      local numbers = entry.numbers
      if entry.counter then
        -- Lua writes numbers from 10^14 on with an exponent.
        for i, value in ipairs(entry.counter) do
          if value >= 1e14 then entry.counter[i] = string.format('%.0f', value) end
        end
        numbers = table.concat(entry.counter, ' ')
      end
      local entry_text = id .. ' ' .. resets .. ' ' .. entry.limit .. ' ' .. numbers
      stored = stored and stored .. ';' .. entry_text or entry_text
      if resets > last then last = resets end
    end
  end
  if not stored then return redis_call('DEL', key) end
  redis_call('SET', key, stored, 'EX', last - second + MINUTE)
end

local wanted = number()
local records, changed, checks, is_allowed = {}, {}, {}, true
local reply = {0, 0, second, nanos}
for _, key in ipairs(KEYS) do
  local record = records[key] or read_record(key)
  records[key] = record
  for _ = 1, number() do
    local id, name = text(), text()
    algorithm_of(name).give_back(counter_of(record[id]))
    changed[key] = true
  end
  local required, cost = number(), number()
  for _ = 1, number() do
    local id, name, limit = text(), text(), text()
    local counter, fits, room, resets, after =
      algorithm_of(name).check(counter_of(record[id]), tonumber(limit), required, cost)
    for i = 1, #counter do reply[#reply + 1] = counter[i] end
    is_allowed = is_allowed and (fits or required == 0)
    if room < wanted * SHARE then wanted = floor(room / SHARE) end
    if cost > 0 then
      checks[#checks + 1] = {key, id, limit, resets, counter, after, cost}
    end
  end
end

if is_allowed then
  if wanted < 0 then wanted = 0 end
  reply[1], reply[2] = 1, wanted
  for _, check in ipairs(checks) do
    local key, counter, after = check[1], check[5], check[6]
    if not after then
      after = {counter[1], math.min(counter[2] + check[7] + wanted, MOST), counter[3]}
    end
    records[key][check[2]] = {resets = check[4], limit = check[3], counter = after}
    changed[key] = true
  end
end
for key in pairs(changed) do write_record(key, records[key]) end
return reply
